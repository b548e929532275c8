"""README's blocks that `mipnb publish` writes: figure, notebooks, numbers, goals of the trial, what a GPU took."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

import pandas as pd

from mipnb.artefacts import read_json
from mipnb.kept_run import latest
from mipnb.report import USAGE
from mipnb.stages import Stage, load_stages, read_notebook
from mipnb.state import RECORD

START = "00_start_here"
RESULT_FIGURE = "fig05_before_after"
SPLITS = ("forget", "test_forget", "retain", "test_retain", "celebrity", "holdout")
METHODS = ("vanilla", "prune", "edited", "random")
GPU_TABLE = "data/results/gpu.csv"  # of `mipnb bench gpu`, copied there by hand
RESULTS, TRIAL = "05_evaluation", "14_trial"


def readme_blocks(run: Path, root: Path, taken: Container[str]) -> dict[str, str]:
    """README's blocks by name, from the notebooks taken of a run, and the project's root.

    What 05 or 14 say is left out if it is not taken; minutes of others are of the run that they were last published from
    (`kept_run`).
    """
    start = root / "notebooks" / f"{START}.ipynb"
    blocks = _result_blocks(run / RESULTS) if RESULTS in taken else {}
    if TRIAL in taken:
        from mipnb.evidence.goals import trial_summary

        blocks["trial"] = trial_summary(run / TRIAL)
    return blocks | {
        "notebooks": notebook_table(load_stages(root / "notebooks"), run, start, taken),
        "gpu": gpu_table(pd.read_csv(root / GPU_TABLE)) if (root / GPU_TABLE).exists() else "",
    }


def _result_blocks(folder: Path) -> dict[str, str]:
    results = pd.read_parquet(folder / "results.parquet")
    caption = read_json(folder / "figures" / "manifest.json")[RESULT_FIGURE]["caption"]
    return {"figure": f"![{caption}](figures/{RESULT_FIGURE}.png)", "numbers": numbers(results)}


def gpu_table(found: pd.DataFrame) -> str:
    """Markdown of what `mipnb bench gpu` measured, with what it ran on."""
    rows = ["| model | GPU | step | seconds | GPU GiB | planned GiB |", "|---|---|---|---|---|---|"]
    for row in found.itertuples():
        planned = "" if pd.isna(row.planned_gib) else f"{row.planned_gib:.1f}"
        where = row.device.removeprefix("NVIDIA ")
        rows.append(
            f"| {row.model} | {where} | {row.step} | {row.seconds:.0f} | {row.gpu_gib:.1f} | {planned} |"
        )
    return "\n".join(rows)


def notebook_table(
    stages: Sequence[Stage], run: Path, start: Path, taken: Container[str] | None = None
) -> str:
    """Markdown: each notebook, what it reads and writes, its item of the paper; minutes and peak memory of its latest run.

    Args:
        stages: in order.
        run: the run's folder.
        start: the notebook outside the run.
        taken: notebooks whose minutes are the run's; by default all that it has. Others' are of what is kept.
    """
    rows = ["| notebook | reads | writes | minutes | peak GB | paper |", "|---|---|---|---|---|---|"]
    if start.exists():
        rows.append(f"| [`{START}`](notebooks/{START}.ipynb) | | | | | {paper_item(start)} |")
    total = of_run = 0.0
    for stage in stages:
        minutes = memory = ""
        folder = latest(run, stage.name, taken)
        if (folder / RECORD).exists():
            seconds = read_json(folder / RECORD)["seconds"]
            total, minutes = total + seconds, f"{seconds / 60:.1f}"
            of_run += 0 if stage.optional else seconds
            memory = f"{read_json(folder / USAGE)['peak_memory_gb']:.1f}"
        reads = ", ".join(name.split("_")[0] for name in stage.reads) or "data"
        writes = ", ".join(f"`{name}`" for name in stage.writes)
        link = f"[`{stage.name}`](notebooks/{stage.name}.ipynb)"
        item = paper_item(stage.notebook)
        rows.append(f"| {link} | {reads} | {writes} | {minutes} | {memory} | {item} |")
    numbers = [stage.name.split("_")[0] for stage in stages if not stage.optional]
    sums = {f"the run, {numbers[0]} to {numbers[-1]}": of_run, "together": total}
    return "\n".join(rows + [f"| {what} | | | {seconds / 60:.1f} | | |" for what, seconds in sums.items()])


def paper_item(notebook: Path) -> str:
    """What a notebook's first cell says after *Paper item:*, on one line without the closing full stop."""
    found = re.search(
        r"\*Paper item:?\*:?\s*(.+?)(?:\n\s*\n|\Z)", read_notebook(notebook).cells[0].source, re.DOTALL
    )
    return " ".join(found[1].split()).rstrip(".") if found else ""


def numbers(results: pd.DataFrame) -> str:
    """Markdown: means over seeds, a row a split and metric of a task, a column a method."""
    from mipnb.evaluation import side_by_side

    table = side_by_side(results[results.metric != "n_unparsed"], list(METHODS)).droplevel("modality")
    seeds = results.groupby("method").seed.nunique()
    names = [f"{name} (seeds: {seeds[name]})" if seeds[name] > 1 else name for name in METHODS]
    rows = [f"| split | task | metric | {' | '.join(names)} |", "|---" * (3 + len(METHODS)) + "|"]
    for split in SPLITS:
        for (_, task, metric), values in table[table.index.get_level_values("split") == split].iterrows():
            marks = " | ".join(f"{value:.2f}" for value in values)
            rows.append(f"| {split} | {task} | {metric} | {marks} |")
    return "\n".join(rows)
