"""One call of `mipnb sweep`: what is missing is done, lost workers' runs again, and everything is told."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from mipnb.sweeps.local import LOG, run_local
from mipnb.sweeps.order import check_runs, split_leaders
from mipnb.sweeps.plan import Sweep, SweepRun
from mipnb.sweeps.worker import finished, is_complete

__all__ = ["Found", "run_sweep"]

_ATTEMPTS = 3  # a run whose worker was lost is given to another, so often in all


@dataclass
class Found:
    """What became of a sweep's runs, by name: `complete`, `failed` (why), `lost` (the worker died each time)."""

    complete: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


def run_sweep(sweep: Sweep, on_slurm: bool = False, wait: bool = True) -> Found:
    """Does the runs of a sweep that are not complete and up to date, with a line of progress each.

    Args:
        sweep: from `read_sweep`.
        on_slurm: as jobs of a cluster, else as processes of this machine.
        wait: False, on Slurm, returns when the jobs are submitted.

    Returns:
        What is there at the end, runs of earlier calls included.

    Raises:
        ValueError, FileNotFoundError: an input of a run is wrong; no Slurm.
    """
    call = uuid.uuid4().hex
    todo = [run for run in sweep.runs if not is_complete(sweep, run)]
    print(
        f"{len(sweep.runs)} runs in {sweep.folder}: {len(sweep.runs) - len(todo)} complete, {len(todo)} to do",
        flush=True,
    )
    check_runs(todo)
    sweep.store()
    tell = _Teller(sweep, call, len(todo))
    for _ in range(_ATTEMPTS if wait else 1):
        left = [run for run in todo if finished(sweep.folder / run.name).get("call") != call]
        if not left:
            break
        groups = [[run.name for run in part] for part in split_leaders(left)]
        if on_slurm:
            from mipnb.sweeps.slurm import run_slurm

            run_slurm(sweep, groups, call, tell, wait)
        else:
            run_local(sweep, [*groups[0], *groups[1]], call, tell)
    return _found(sweep, todo, call)


class _Teller:
    """Prints a line for each run that has ended."""

    def __init__(self, sweep: Sweep, call: str, total: int) -> None:
        self.sweep, self.call, self.total, self.ended = sweep, call, total, 0

    def __call__(self, name: str) -> None:
        run = next(run for run in self.sweep.runs if run.name == name)
        result = finished(self.sweep.folder / name)
        if result.get("call") != self.call:
            print(f"{name} ({run.label()}): its worker was lost, or another call's is at it", flush=True)
            return
        self.ended += 1
        shared = [stage for stage, state in result["notebooks"].items() if state.startswith("shared")]
        told = f", shared {', '.join(shared)}" if shared else ""
        print(
            f"[{self.ended}/{self.total}] {name} ({run.label()}): {result['state']}, {result['seconds']:.1f} s{told}",
            flush=True,
        )


def _found(sweep: Sweep, todo: Sequence[SweepRun], call: str) -> Found:
    """What is there after a call."""
    missing = {run.name for run in todo}
    found = Found(complete=[run.name for run in sweep.runs if run.name not in missing])
    for run in todo:
        result = finished(sweep.folder / run.name)
        if result.get("state") == "failed" and result["call"] == call:
            found.failed[run.name] = result["error"]
        elif result.get("state") == "complete":
            found.complete.append(run.name)
        else:
            found.lost[run.name] = f"no result; what its worker said: {sweep.folder / run.name / LOG}"
    return found
