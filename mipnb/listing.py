"""`mipnb runs`: every run with its state, its scores and its time; reads small files only, and no model library."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mipnb.artefacts import project_root, read_json
from mipnb.headline import headline, results_file
from mipnb.progress import clock
from mipnb.report import USAGE
from mipnb.stages import load_stages
from mipnb.state import RECORD
from mipnb.sweeps.plan import SWEEP

__all__ = ["Run", "add_parser", "command", "find_runs", "is_running"]


@dataclass
class Run:
    """A run's folder: name (`sweep/run` in a sweep), state, seconds of its notebooks, scores, when it last changed."""

    name: str
    state: str
    seconds: float
    changed: float
    scores: dict[str, float] = field(default_factory=dict)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb runs`."""
    parser = commands.add_parser("runs", help="all runs, with state, scores and time", allow_abbrev=False)
    parser.add_argument("--method", default="edited", metavar="NAME", help="whose scores (default: edited)")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Prints a line a run, the latest last."""
    listed = load_stages(project_root() / "notebooks")
    stages = [stage.name for stage in listed if not stage.optional]
    runs = find_runs(project_root() / "runs", stages, options.method)
    print(table(runs, options.method))
    return 0


def find_runs(folder: Path, stages: Sequence[str], method: str) -> list[Run]:
    """The runs in a folder, those of its sweeps among them, in the order of their last change.

    Args:
        folder: runs/ of the project.
        stages: the notebooks that a run must have.
        method: whose scores.
    """
    names = [name for name in _names(folder) if any((folder / name / stage).is_dir() for stage in stages)]
    runs = (_read(folder / name, name, stages, method) for name in names)
    return sorted(runs, key=lambda run: (run.changed, run.name))


def _names(folder: Path) -> Iterator[str]:
    """Names of the folders that may be runs."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            if (path / SWEEP).is_file():
                inner = (one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
                yield from (f"{path.name}/{name}" for name in inner)
            else:
                yield path.name


def _read(folder: Path, name: str, stages: Sequence[str], method: str) -> Run:
    """One run's line."""
    done = [stage for stage in stages if (folder / stage / RECORD).is_file()]
    usages = [folder / stage / USAGE for stage in done]
    seconds = sum(read_json(usage)["seconds"] for usage in usages if usage.is_file())
    changed = (
        max((folder / stage / RECORD).stat().st_mtime for stage in done) if done else folder.stat().st_mtime
    )
    run = Run(name, _state(folder, done, stages), seconds, changed)
    if file := results_file(folder):
        run.scores = headline(file, method)
    return run


def _state(folder: Path, done: Sequence[str], stages: Sequence[str]) -> str:
    """complete, running, failed in NB, or how far it is."""
    if len(done) < len(stages) and is_running(folder):
        return "running"
    failed = [
        stage
        for stage in stages
        if stage not in done and (folder / stage / "notebook.failed.ipynb").is_file()
    ]
    if failed:
        return f"failed in {failed[0].split('_')[0]}"
    return "complete" if len(done) == len(stages) else f"{len(done)} of {len(stages)} notebooks"


def is_running(folder: Path) -> bool:
    """Whether a process holds the run's folder."""
    import filelock

    lock = filelock.FileLock(folder / ".lock")
    if not Path(lock.lock_file).is_file():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


def table(runs: Sequence[Run], method: str) -> str:
    """The lines: run, state, accuracy on people to forget and on others, time, when."""
    rows = [("run", "state", "forget", "kept", "time", "last change")] + [_row(run) for run in runs]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    note = (
        f"forget, kept: mean accuracy of method {method} on people to forget, and on all whom it should know"
    )
    return "\n".join([*lines, note])


def _row(run: Run) -> tuple[str, ...]:
    scores = [f"{run.scores[name]:.3f}" if name in run.scores else "-" for name in ("forget", "kept")]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
    return run.name, run.state, *scores, clock(run.seconds), when
