"""`mipnb clean`: shows what it would delete, with sizes, and deletes after a yes."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mipnb.artefacts import PARTIAL, project_root
from mipnb.listing import is_running
from mipnb.report import LAST_USAGE
from mipnb.state import RECORD

__all__ = ["add_parser", "command", "delete", "freed", "leftovers", "whole_runs"]

_MIB = 2**20


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb clean`."""
    parser = commands.add_parser("clean", help="delete runs, or what killed ones left", allow_abbrev=False)
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="runs or sweeps to delete whole; none: leftovers of all runs"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Shows what would go, asks, deletes; the exit code is 0 also after a no."""
    folder = project_root() / "runs"
    found = whole_runs(folder, options.runs) if options.runs else list(leftovers(folder))
    if not found:
        print("there is nothing to delete")
        return 0
    for path in found:
        print(f"{path.relative_to(folder.parent).as_posix()}  {_size(freed([path]))}")
    print(f"together {_size(freed(found))}")
    if not options.yes and not _agreed(len(found)):
        print("nothing was deleted")
        return 0
    delete(found)
    print(f"deleted {len(found)} files and folders")
    return 0


def whole_runs(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders of named runs (`name`, or `sweep/name`).

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: the name leads out of runs/, or the run is under way.
    """
    found = []
    for name in names:
        path = folder / name
        if (
            path.is_symlink()
            or not path.resolve().is_relative_to(folder.resolve())
            or path.resolve() == folder.resolve()
        ):
            raise ValueError(
                f"{name!r} is not a run within {folder}; expected names as `mipnb runs` shows them"
            )
        if not path.is_dir():
            raise FileNotFoundError(f"there is no run {path}; `mipnb runs` shows those there are")
        if busy := [lock.parent for lock in path.rglob(".lock") if is_running(lock.parent)]:
            raise ValueError(f"{busy[0]} is under way: stop it first")
        found.append(path)
    return found


def leftovers(folder: Path) -> Iterator[Path]:
    """What killed or failed runs left behind, and no later run needs; runs that are under way are passed over.

    Half-written files and notebooks that were cut off; of notebooks that are through since, the failed copy and partial
    results. Partial results of notebooks that are not through are kept: a run goes on with them.
    """
    runs = {path.parent.parent for path in folder.rglob("params.json")} if folder.is_dir() else set()
    for run in sorted(runs):
        if is_running(run):
            continue
        yield from sorted(run.rglob(".writing-*"))
        for stage in sorted(path for path in run.iterdir() if path.is_dir()):
            through = (stage / RECORD).is_file()
            names = [
                "notebook.running.ipynb",
                *(["notebook.failed.ipynb", PARTIAL, LAST_USAGE] if through else []),
            ]
            yield from (stage / name for name in names if (stage / name).exists())


def freed(paths: Sequence[Path]) -> int:
    """Bytes that deleting would free: a file with links elsewhere (a notebook that runs share) frees nothing."""
    seen: dict[tuple[int, int], list[int]] = {}
    for status in _files(paths):
        seen.setdefault((status.st_dev, status.st_ino), [status.st_nlink, status.st_size, 0])[2] += 1
    return sum(size for links, size, count in seen.values() if count >= links)


def _files(paths: Sequence[Path]) -> Iterator[os.stat_result]:
    for path in paths:
        for one in [path] if not path.is_dir() else path.rglob("*"):
            if not one.is_dir() or one.is_symlink():
                yield one.lstat()


def delete(paths: Sequence[Path]) -> None:
    """Deletes files and folders."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / _MIB:.1f} MB" if n_bytes < 1000 * _MIB else f"{n_bytes / 2**30:.1f} GB"


def _agreed(count: int) -> bool:
    """Whether the user says yes; no terminal means no."""
    try:
        return input(f"delete these {count}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False
