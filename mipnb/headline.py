"""A run in two numbers: how often it is right about the people to forget, and about all others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["FORGET", "KEPT", "headline", "last_results", "results_file"]

#: splits of people to forget, and of people to keep; people nobody knows (holdout) are neither
FORGET = ("forget", "test_forget")
KEPT = ("retain", "test_retain", "celebrity", "bystander", "real_world")
_COLUMNS = ["split", "method", "metric", "value"]


def results_file(run: str | Path) -> Path | None:
    """A run's results.parquet: the evaluation's, where it has one; else as `last_results`."""
    file = Path(run) / "05_evaluation" / "results.parquet"
    return file if file.is_file() else last_results(run)


def last_results(run: str | Path) -> Path | None:
    """The results.parquet of a run's folder, in the last notebook's folder that has one; None if there is none."""
    folders = sorted((entry.path for entry in os.scandir(run) if entry.name[0].isdigit()), reverse=True)
    files = (Path(folder) / "results.parquet" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def headline(file: str | Path, method: str = "edited") -> dict[str, float]:
    """Mean accuracies of one method over splits, tasks and seeds.

    Args:
        file: a results.parquet (see `mipnb.evaluation`); read by pyarrow alone, which takes a millisecond.
        method: whose.

    Returns:
        `forget` and `kept`, 0 to 1; without those of which there are no rows.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        columns = opened.read(columns=_COLUMNS, use_threads=False).to_pydict()
    rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
    return means(
        (split, value) for split, who, metric, value in rows if who == method and metric == "accuracy"
    )


def means(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """`forget` and `kept` of pairs of a split and a value."""
    values: Mapping[str, list[float]] = {"forget": [], "kept": []}
    for split, value in rows:
        if split in FORGET or split in KEPT:
            values["forget" if split in FORGET else "kept"].append(value)
    return {name: sum(found) / len(found) for name, found in values.items() if found}
