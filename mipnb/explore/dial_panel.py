"""The dial: how strong an edit is, against what is forgotten and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets
import pandas as pd

from mipnb.artefacts import project_root
from mipnb.benchmarks import Question
from mipnb.explore.dial import dial_point
from mipnb.explore.drawing import blank, dial_curve, html_table, png
from mipnb.explore.opened import GROUPS, Opened, run_edits
from mipnb.explore.runs import run_name
from mipnb.explore.work import Panel, Run, Step, Work
from mipnb.listing import find_runs
from mipnb.stages import load_stages

STRENGTHS = tuple(number / 10 for number in range(11))


def dial_questions(opened: Opened, n_each: int = 12) -> dict[str, list[Question]]:
    """The first located questions of both sets, as many of each modality."""
    return {
        group: [
            q
            for modality in ("text", "image_text")
            for q in list(opened.asked[group, modality].values())[:n_each]
        ]
        for group in GROUPS
    }


def runs_table(folder: Path | None = None) -> pd.DataFrame:
    """The runs of a folder, runs/ of the project by default: run, state, forget, kept; the latest last."""
    stages = [stage.name for stage in load_stages(project_root() / "notebooks") if not stage.optional]
    found = find_runs(folder or project_root() / "runs", stages, "edited")
    rows = [(run.name, run.state, run.scores.get("forget"), run.scores.get("kept")) for run in found]
    return pd.DataFrame(rows, columns=["run", "state", "forget", "kept"]).astype(
        {"forget": float, "kept": float}
    )


class DialPanel(Panel):
    """A run, one of its edits, a strength; the curve grows with every strength that was asked."""

    what = "dial"

    def __init__(self, opened: Opened, max_new_tokens: int) -> None:
        self.opened, self.max_new_tokens, self.points = opened, max_new_tokens, {}
        self.asked, self.runs = dial_questions(opened), runs_table()
        self.own = run_name(opened.folder)
        names = [self.own, *(name for name in self.runs.run if name != self.own)]
        self.run = widgets.Dropdown(description="run", options=names)
        self.edit = widgets.Dropdown(description="edit")
        self.strength = widgets.FloatSlider(
            1.0, min=0, max=1, step=0.05, description="strength", continuous_update=False
        )
        self.all = widgets.Button(description="whole curve")
        self.table, self.figure = widgets.HTML(), widgets.Image(format="png", layout={"max_width": "420px"})
        self.listed = widgets.HTML(html_table(self.runs.set_index("run")))
        self.work = Work()
        self._edits()
        self._compute(self.work.now, (0.0, 1.0))
        self.run.observe(lambda _: self._run_changed(), "value")
        self.edit.observe(lambda _: self._fresh(), "value")
        self.strength.observe(lambda _: self._compute(self.work.start, (self.strength.value,)), "value")
        self.all.on_click(lambda _: self._compute(self.work.start, STRENGTHS))
        right = widgets.VBox(
            [self.table, widgets.HTML("runs to choose from; forget, kept: mean accuracy"), self.listed]
        )
        controls = widgets.HBox([self.run, self.edit])
        dial = widgets.HBox([self.strength, self.all])
        super().__init__([controls, dial, self.work, widgets.HBox([self.figure, right])])
        self.add_class("mipnb-dial")

    def _edits(self) -> None:
        self.edits = (
            self.opened.edits
            if self.run.value == self.own
            else run_edits(project_root() / "runs" / self.run.value)
        )
        self.edit.options = list(self.edits)
        self.edit.value = next(iter(self.edits), None)

    def _run_changed(self) -> None:
        try:
            self._edits()
        except (ValueError, FileNotFoundError) as error:
            self.work.tell(error)
        else:
            self._fresh()

    def _fresh(self) -> None:
        """Another edit: a new curve."""
        self.points = {}
        self._compute(self.work.start, (0.0, self.strength.value))

    def _compute(self, run: Run, strengths: Sequence[float]) -> None:
        name, points = self.edit.value, self.points

        def task(step: Step) -> str:
            """Score every strength; the line that says what was done."""
            if name not in self.edits:
                self.table.value, self.figure.value = "", png(blank(4.2, 2.8))  # not another edit's
                raise ValueError(
                    f"run {self.run.value} has no edits: run `mipnb run --name {self.run.value}`"
                )
            for number, strength in enumerate(strengths):
                step(number, len(strengths))
                if strength not in points:
                    with self.opened.lock:
                        model, processor = self.opened.model, self.opened.processor
                        at = (self.edits[name], strength, self.asked, self.max_new_tokens)
                        points[strength] = dial_point(model, processor, *at)
                self._show(points, strength)
            return f"{name} at {strengths[-1]:g}"

        run(task)

    def _show(self, points: dict[float, pd.DataFrame], strength: float) -> None:
        figure = blank(4.2, 2.8)
        dial_curve(pd.concat(points.values()), figure.subplots())
        self.figure.value = png(figure)
        self.table.value = html_table(points[strength].set_index("set"), classes=["mipnb-dial-table"])
