"""The published run, kept with the data: what its notebooks read and made, so that they can be shown again in seconds.

A fresh clone has no runs, and the notebooks beyond the main job take an hour to make one. Kept are each notebook's record
(parameters, digests of sources, code and inputs), its artefacts, and its finished units of work (`results.store`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Container, Sequence
from pathlib import Path

from mipnb.artefacts import atomic_path, under_root
from mipnb.params import Params
from mipnb.report import USAGE
from mipnb.results.store import ITEMS
from mipnb.stages import Stage
from mipnb.state import RECORD, stale_reasons

__all__ = ["KEPT", "check_kept", "keep", "kept_stages", "latest", "lay_out", "mismatches"]

KEPT = "data/results/pocket_run"


def keep(stages: Sequence[Stage], run: Path, place: str | Path = KEPT) -> Path:
    """Replace what is kept of these notebooks by a run's, all of them or none; returns the folder. Others' stays.

    Args:
        stages: those published; one that leaves nothing to read (`writes`) is left out.
        run: the run's folder.
        place: where to, from the project's root.
    """
    kept, stages = under_root(place), [stage for stage in stages if stage.writes]
    if not stages:
        return kept
    with atomic_path(kept) as folder:
        if kept.exists():
            shutil.copytree(kept, folder, ignore=shutil.ignore_patterns(*(stage.name for stage in stages)))
        for stage in stages:
            for name in (RECORD, USAGE, ITEMS, *stage.writes):
                if (run / stage.name / name).exists():
                    _copy(run / stage.name / name, folder / stage.name / name)
    return kept


def latest(run: Path, name: str, taken: Container[str] | None = None, place: str | Path = KEPT) -> Path:
    """A notebook's folder in a run; in what is kept, if it is not among those taken, or the kept has it and the run has not."""
    kept, ran = under_root(place) / name, run / name
    if taken is not None and name not in taken:
        return kept
    return kept if (kept / RECORD).exists() and not (ran / RECORD).exists() else ran


def lay_out(place: Path, run: Path) -> Path:
    """Copy what is kept to where a run lies; returns that folder. What else is there stays."""
    return Path(shutil.copytree(place, run, dirs_exist_ok=True))


def kept_stages(stages: Sequence[Stage], place: str | Path = KEPT) -> list[Stage]:
    """The notebooks of which something is kept."""
    return [stage for stage in stages if (under_root(place) / stage.name / RECORD).exists()]


def check_kept(
    stages: Sequence[Stage], published: Sequence[Stage], run: Path, place: str | Path = KEPT
) -> None:
    """ValueError if what is kept of others fits no longer once what is kept of those published is a run's.

    Args:
        stages: all there are.
        published: those that `keep` would get.
        run: the run's folder.
        place: what is kept, from the project's root.
    """
    before = under_root(place)
    with tempfile.TemporaryDirectory() as folder:
        after = Path(folder) / "kept"
        if before.exists():
            shutil.copytree(before, after)
        known = mismatches(stages, before)
        told = [reason for reason in mismatches(stages, keep(published, run, after)) if reason not in known]
    if told:
        names, reasons = ", ".join(stage.name for stage in published), "\n".join(told)
        raise ValueError(
            f"publishing {names} would leave {before} inconsistent, found\n{reasons}\nexpected all that is kept to be of one "
            "run: run these notebooks, too, and publish them together"
        )


def mismatches(stages: Sequence[Stage], place: str | Path = KEPT) -> list[str]:
    """Why what is kept is not of the notebooks, default parameters and data that are here; empty if it is.

    A change of code alone is not told: the kept run says what code it was made by, and the notebooks are shown again by
    today's.
    """
    folder, by_name = under_root(place), {stage.name: stage for stage in stages}
    return [
        f"{stage.name}: {reason}"
        for stage in kept_stages(stages, place)
        for reason in stale_reasons(stage, Params(), folder, by_name)
        if not reason.startswith("code changed")
    ]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
