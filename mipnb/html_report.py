"""`mipnb run --report`: one HTML file of a run that needs nothing else: no network, no script, pictures within.

What it shows is what the run left: records, parameters, logs, the executed notebooks' tables, the figures' manifests.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mipnb.artefacts import atomic_path, read_json
from mipnb.outcome import Outcome
from mipnb.outcome import table as outcome_table
from mipnb.params import Params
from mipnb.plain_html import markdown_html, page, table_html
from mipnb.plan import Plan, list_stages
from mipnb.stages import read_notebook
from mipnb.state import RECORD

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"
_STORY = "mipnb-people"  # class of the page of people before and after (`mipnb.people`)
_WARNING = re.compile(r"\w*Warning: |out of memory|Traceback")
_MOST_WARNINGS = 50


def write_report(plan: Plan) -> Path:
    """Writes report.html into a run's folder, whole.

    Args:
        plan: of the run (`plan.make_plan`); its notebooks need not be through, what is there is shown.

    Returns:
        The file.
    """
    outcomes = list_stages(plan)
    sections = {
        "State": f"<pre>{html.escape(outcome_table(outcomes, with_reasons=True))}</pre>",
        "Warnings": _warnings(plan, outcomes),
        "Parameters": _parameters(plan),
        "Before and after": _story(plan),
        "Figures": "".join(_figures(plan)),
        "Tables": "".join(_tables(plan)),
        "Versions": _versions(plan),
    }
    path = plan.run / REPORT
    with atomic_path(path) as temporary:
        temporary.write_text(page(f"Run {plan.run.name}", sections), encoding="utf-8")
    return path


def _parameters(plan: Plan) -> str:
    """Every parameter that a notebook takes, those that are not at their default marked."""
    rows = []
    for name in sorted(plan.taken):
        value, field = getattr(plan.params, name), Params.model_fields[name]
        shown, changed = html.escape(repr(value)), value != field.default and name != "run_dir"
        rows.append((name, f"<b>{shown}</b>" if changed else shown, html.escape(field.description or "")))
    return "<p>Bold: not the default.</p>" + table_html(("parameter", "value", "meaning"), rows)


def _warnings(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """What is not up to date, what failed, and warnings that notebooks printed."""
    told = [f"{one.name}: {'; '.join(one.reasons)}" for one in outcomes if one.reasons]
    for name in plan.selected:
        folder = plan.run / name
        failed = [] if (folder / RECORD).exists() else _errors(folder / "notebook.failed.ipynb")
        told += [f"{name}: {line}" for line in [*failed, *_warned(folder / "log.txt")]]
    unique = list(dict.fromkeys(told))
    more = (
        [f"({len(unique) - _MOST_WARNINGS} more in the notebooks' log.txt)"]
        if len(unique) > _MOST_WARNINGS
        else []
    )
    items = "".join(f"<li>{html.escape(line)}</li>" for line in [*unique[:_MOST_WARNINGS], *more])
    return f"<ul>{items}</ul>" if items else "<p>None.</p>"


def _warned(log: Path) -> list[str]:
    """A log's lines that warn."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [line.strip() for line in text.splitlines() if _WARNING.search(line)]


def _errors(notebook: Path) -> list[str]:
    """The errors in a failed notebook: the cell's count, kind and message."""
    if not notebook.is_file():
        return []
    cells = [cell for cell in read_notebook(notebook).cells if cell.cell_type == "code"]
    found = [(cell, out) for cell in cells for out in cell.outputs if out.output_type == "error"]
    return [f"failed in cell In [{cell.execution_count}]: {out.ename}: {out.evalue}" for cell, out in found]


def _outputs(plan: Plan) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Notebook, the heading above, and data of every rich output of the executed notebooks."""
    for name in plan.selected:
        path = plan.run / name / "notebook.ipynb"
        heading = ""
        for cell in read_notebook(path).cells if path.is_file() else ():
            if cell.cell_type == "markdown":
                headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
                heading = headings[-1] if headings else heading
            for output in cell.get("outputs", ()):
                if output.output_type in ("display_data", "execute_result"):
                    yield name, heading, output.data


def _story(plan: Plan) -> str:
    """The page of people before and after, as the notebooks made it."""
    found = [data["text/html"] for *_, data in _outputs(plan) if _STORY in data.get("text/html", "")]
    return "".join(found) or "<p>No notebook of this run has made the page of people yet.</p>"


def _tables(plan: Plan) -> Iterator[str]:
    """The notebooks' tables and sentences, each under its notebook's name and heading."""
    before = ("", "")
    for name, heading, data in _outputs(plan):
        shown = data.get("text/html") or markdown_html(data.get("text/markdown", ""))
        if not shown or _STORY in shown or re.search(r"<script|src=.?https?:", shown):
            continue
        if name != before[0]:
            yield f"<h3>{html.escape(name)}</h3>"
        if (name, heading) != before:
            yield f"<h4>{html.escape(heading)}</h4>"
        before = (name, heading)
        yield f'<div class="output">{shown}</div>'


def _figures(plan: Plan) -> Iterator[str]:
    """Every figure that the notebooks saved, as a picture within the page, with its caption."""
    for name in plan.selected:
        manifest = plan.run / name / "figures" / "manifest.json"
        for figure, entry in (read_json(manifest) if manifest.is_file() else {}).items():
            picture = manifest.parent / f"{figure}.png"
            if picture.is_file():
                data = base64.b64encode(picture.read_bytes()).decode()
                caption = html.escape(f"{figure}: {entry['caption']}")
                yield (
                    f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{caption}</figcaption></figure>"
                )


def _versions(plan: Plan) -> str:
    """Versions, seed, device and memory, as the last cell of the last notebook that is through says."""
    found = [
        data["text/html"] for *_, data in _outputs(plan) if "peak_memory_gb" in data.get("text/html", "")
    ]
    return found[-1] if found else "<p>No notebook of this run is through yet.</p>"
