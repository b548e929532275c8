"""Runs side by side: the parameters that differ, the scores, the losses while editing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mipnb.artefacts import project_root, read_json, under_root
from mipnb.evaluation import aggregate, read_results
from mipnb.headline import results_file
from mipnb.plotting import MAIN_METRIC
from mipnb.task_names import named_tasks


@dataclass(frozen=True, eq=False)
class Compared:
    """Runs beside each other.

    Attributes:
        parameters: one row a parameter that all take and that differs, one column a run.
        scores: rows (split, task as it is shown), columns (run, method): the task's main metric, mean over seeds.
        curves: the losses of each step of editing: run and the columns of history.parquet; empty if none was kept.
    """

    parameters: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame


def compare(runs: Sequence[str | Path]) -> Compared:
    """Set runs beside each other.

    Args:
        runs: folders, from the project's root, one or more.

    Raises:
        ValueError: none, or one of them twice.
        FileNotFoundError: a folder without results.
    """
    folders = {run_name(under_root(run)): under_root(run) for run in runs}
    if not runs or len(folders) < len(runs):
        raise ValueError(
            f"{len(runs)} runs are chosen, {len(folders)} different ones: choose one or more, once each"
        )
    return Compared(_parameters(folders), _scores(folders), _curves(folders))


def run_name(folder: Path) -> str:
    """The run's name, behind its sweep's."""
    home = project_root() / "runs"
    return folder.relative_to(home).as_posix() if folder.is_relative_to(home) else folder.name


def _parameters(folders: dict[str, Path]) -> pd.DataFrame:
    columns = {}
    for name, folder in folders.items():
        taken: dict = {}
        for path in sorted(folder.glob("[0-9]*/params.json")):
            taken |= read_json(path)
        columns[name] = {key: str(value) for key, value in taken.items() if key != "run_dir"}
    table = pd.DataFrame(columns).dropna()
    return table[table.nunique(axis=1) > 1].rename_axis("parameter")


def _scores(folders: dict[str, Path]) -> pd.DataFrame:
    parts = {}
    for name, folder in folders.items():
        file = results_file(folder) if folder.is_dir() else None
        if file is None:
            raise FileNotFoundError(
                f"{name} has no results: run `mipnb run --name {name}`, or choose another run"
            )
        means = aggregate(read_results(file))
        means = named_tasks(means[means.task.map(MAIN_METRIC) == means.metric])
        parts[name] = means.pivot_table(index=["split", "task"], columns="method", values="value", sort=False)
    return pd.concat(parts, axis=1, names=["run"])


def _curves(folders: dict[str, Path]) -> pd.DataFrame:
    files = {name: folder / "04_editing" / "history.parquet" for name, folder in folders.items()}
    parts = [pd.read_parquet(file).assign(run=name) for name, file in files.items() if file.is_file()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", "step", "loss"])
