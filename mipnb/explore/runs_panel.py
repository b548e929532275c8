"""Compare runs: parameters that differ, scores and losses, side by side."""

from __future__ import annotations

import ipywidgets as widgets

from mipnb.explore.dial_panel import runs_table
from mipnb.explore.drawing import blank, html_table, loss_curves, png
from mipnb.explore.runs import compare
from mipnb.explore.work import Panel, Run, Step, Work


class RunsPanel(Panel):
    """Runs to pick, and what they have in common and not."""

    what = "comparison"

    def __init__(self) -> None:
        listed = runs_table()
        scored = list(listed.dropna(subset="forget").run)
        self.runs = widgets.SelectMultiple(
            description="runs", options=list(listed.run), value=scored[-2:], rows=6, layout={"width": "420px"}
        )
        self.tables, self.work = widgets.HTML(), Work()
        self.figure = widgets.Image(format="png", layout={"max_width": "480px"})
        self._compare(self.work.now)
        self.runs.observe(lambda _: self._compare(self.work.start), "value")
        super().__init__([self.runs, self.work, self.tables, self.figure])
        self.add_class("mipnb-compare")

    def _compare(self, run: Run) -> None:
        chosen = list(self.runs.value)

        def task(step: Step) -> str:
            """Read the runs chosen and show them; the line that says what was done."""
            self.tables.value, self.figure.value = "", png(blank(4.8, 2.6))  # not other runs', below a slip
            found = compare([f"runs/{name}" for name in chosen])
            step(1, 2)
            self.tables.value = (
                "<b>parameters that differ</b>"
                + (html_table(found.parameters) if len(found.parameters) else "<p>none</p>")
                + "<b>main metric of each task</b>" + html_table(found.scores)
            )  # fmt: skip
            figure = blank(4.8, 2.6)
            loss_curves(found.curves, figure.subplots())
            self.figure.value = png(figure)
            return f"{len(chosen)} {'run' if len(chosen) == 1 else 'runs'}"

        run(task)
