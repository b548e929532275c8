"""One run of a sweep, in one process: its chain of notebooks, its validation, and a record that is written last."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mipnb.artefacts import atomic_path, read_json, sha256, write_json
from mipnb.outcome import NotebookFailedError
from mipnb.params import Params
from mipnb.plan import Plan, make_plan
from mipnb.run import locked, run_stage
from mipnb.state import reached, stale_reasons
from mipnb.sweeps.claims import Claim, claim
from mipnb.sweeps.plan import Rule, Sweep, SweepRun, digest, stored_sweep
from mipnb.sweeps.shared import Shelf

__all__ = ["CLAIMED", "RESULT", "VALIDATION", "finished", "is_complete", "main", "trial_files", "work"]

RESULT = "run.json"  # of a run's folder, written last: without it the run does not count
VALIDATION = "validation"  # folder of a run's trials on validation people
_VALIDATES = Path(__file__).resolve().parents[1] / "validation.py"
CLAIMED = "claimed"  # the state of a run that another worker is at


def work(folder: str | Path, name: str, call: str) -> dict[str, Any]:
    """Does one run of a sweep, unless another worker is at it or it is done.

    Args:
        folder: the sweep's.
        name: the run's.
        call: of `mipnb sweep`.

    Returns:
        What is in the run's `run.json`: state (complete or failed), error, seconds, notebooks (name -> state), call;
        or {"state": "claimed"}.
    """
    sweep = stored_sweep(folder)
    run = next(run for run in sweep.runs if run.name == name)
    taken = claim(sweep.folder / ".claims", run.name)
    if taken is None:
        return {"state": CLAIMED}
    with taken:
        known = finished(sweep.folder / name)
        if known and (known["call"] == call or is_complete(sweep, run)):
            return known
        return _do(sweep, run, call, taken)


def finished(folder: Path) -> dict[str, Any]:
    """A run's `run.json`; empty if it has none."""
    return read_json(folder / RESULT) if (folder / RESULT).is_file() else {}


def is_complete(sweep: Sweep, run: SweepRun) -> bool:
    """Whether all of a run is there and up to date."""
    folder = sweep.folder / run.name
    if finished(folder).get("state") != "complete" or not all(
        file.is_file() for file in trial_files(folder, sweep.file.best).values()
    ):
        return False
    plan = make_plan(run.params)
    return not any(
        stale_reasons(plan.stages[name], plan.params, plan.run, plan.stages) for name in plan.selected
    )


def _do(sweep: Sweep, run: SweepRun, call: str, taken: Claim) -> dict[str, Any]:
    """Does a run that this process has claimed, and records what became of it."""
    started, notebooks, folder = time.time(), {}, sweep.folder / run.name
    found: dict[str, Any] = {"name": run.name, "varied": run.varied, "state": "complete"}
    (folder / RESULT).unlink(missing_ok=True)
    try:
        with locked(folder):
            for name, state in _chain(make_plan(run.params), Shelf(sweep.folder, call), taken):
                notebooks[name] = state
            _validate(run.params, folder, sweep.file.best)
    except (NotebookFailedError, ValueError, OSError) as error:
        found |= {"state": "failed", "error": str(error)}
    found |= {
        "notebooks": notebooks,
        "started": started,
        "seconds": round(time.time() - started, 2),
        "call": call,
    }
    write_json(folder / RESULT, found)
    return found


def _chain(plan: Plan, shelf: Shelf, taken: Claim) -> Iterator[tuple[str, str]]:
    """Brings one notebook after another up to date; yields each with `up to date`, `ran` or the run it is shared with."""
    for name in plan.selected:
        if not taken.held():
            raise ValueError(f"another worker has taken over {plan.run}: this one was taken for dead")
        stage = plan.stages[name]
        reasons = stale_reasons(stage, plan.params, plan.run, plan.stages)
        state = "up to date"
        if reasons:
            print(f"{name}: {'; '.join(reasons)} ...", flush=True)
            where = (stage, plan.params, plan.run, plan.stages)
            source = shelf.bring(*where, make=lambda stage=stage: run_stage(plan, stage))
            state = "ran" if source == plan.run.name else f"shared with {source}"
        print(f"{name}: {state}", flush=True)
        yield name, state


def trial_files(folder: Path, rule: Rule | None) -> dict[int, Path]:
    """Trial -> the file of what a run's settings did on its validation people, by the program that is here."""
    code = {path.name: sha256(path) for path in reached([_VALIDATES])} if rule else {}
    return {
        trial: folder / VALIDATION / f"{trial}-{digest(code)[:12]}.parquet"
        for trial in (rule.trials if rule else [])
    }


def _validate(params: Params, folder: Path, rule: Rule | None) -> None:
    """Tries the run's settings on validation people, a file a trial."""
    for trial, file in trial_files(folder, rule).items():
        if not file.is_file():
            from mipnb.validation import validate

            print(f"validation people, trial {trial} ...", flush=True)
            with atomic_path(file) as temporary:
                validate(params, trial).to_parquet(temporary, index=False)


def main(arguments: list[str]) -> int:
    """A worker process on this machine: folder, run and call; the exit code is 0 whatever became of the run."""
    folder, name, call = arguments
    print(work(folder, name, call)["state"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
