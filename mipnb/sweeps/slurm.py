"""A sweep's runs as jobs of a Slurm cluster, by submitit: array jobs, one job a run, a bound on how many at a time."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import DelayedSubmission

from mipnb.sweeps.plan import Cluster, Sweep
from mipnb.sweeps.worker import finished, work

__all__ = ["Job", "executor", "run_slurm", "submit"]

_LOOK = 2.0  # seconds between two looks at the queue
_WARNING_SECONDS = 90  # before a job's time is up, or it is preempted, it is told so


@dataclass(frozen=True)
class Job:
    """What one job does. Warned of its end, it lets go of its run and is queued again; the run goes on where it was."""

    folder: Path
    name: str
    call: str

    def __call__(self) -> dict[str, Any]:
        return work(self.folder, self.name, self.call)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again."""
        return DelayedSubmission(self)


def executor(folder: Path, cluster: Cluster, after: str = "") -> SlurmExecutor:
    """A submitit executor that asks Slurm for what a sweep's file says.

    Args:
        folder: for submitit's files; the cluster sees it.
        cluster: the file's `slurm`.
        after: a job before whose end these do not start; empty for none.

    Raises:
        FileNotFoundError: there is no Slurm here.
    """
    try:
        made = SlurmExecutor(folder, max_num_timeout=cluster.requeues)
    except RuntimeError:
        raise FileNotFoundError(
            "Slurm's srun is not here: call `mipnb sweep --slurm` where jobs are submitted, or leave --slurm out"
        ) from None
    optional = {
        "partition": cluster.partition, "account": cluster.account, "qos": cluster.qos,
        "constraint": cluster.constraint, "setup": cluster.setup, "gpus_per_node": cluster.gpus,
        "dependency": after and f"afterany:{after}",
    }  # fmt: skip
    memory = {"mem": f"{round(cluster.mem_gb * 1024)}M"} if cluster.mem_gb else {}
    made.update_parameters(**{
        "job_name": "mipnb", "time": round(cluster.hours * 60), "cpus_per_task": cluster.cpus, "ntasks_per_node": 1,
        "nodes": 1, "array_parallelism": cluster.jobs_at_once, "signal_delay_s": _WARNING_SECONDS,
        "additional_parameters": {"requeue": True} | memory,
    } | {name: value for name, value in optional.items() if value})  # fmt: skip
    return made


def submit(sweep: Sweep, groups: Sequence[Sequence[str]], call: str) -> list[str]:
    """Submits runs, each group as one array that starts when the one before has ended; returns the arrays' numbers."""
    numbers: list[str] = []
    for names in filter(None, groups):
        made = executor(sweep.folder / ".jobs", sweep.file.slurm, numbers[-1] if numbers else "")
        with made.batch():
            jobs = [made.submit(Job(sweep.folder, name, call)) for name in names]
        numbers.append(jobs[0].job_id.split("_")[0])
    return numbers


def run_slurm(
    sweep: Sweep, groups: Sequence[Sequence[str]], call: str, tell: Callable[[str], None], wait: bool = True
) -> None:
    """Has runs done by jobs, and waits until Slurm knows none of them any more.

    Args:
        sweep: stored, on a folder that the cluster sees.
        groups: names of the runs, those first on which others wait.
        call: of `mipnb sweep`.
        tell: told the name of each run that has ended.
        wait: False returns once they are submitted.
    """
    numbers = submit(sweep, groups, call)
    told: set[str] = set()
    names = [name for group in groups for name in group]
    while wait:
        queued = _queued(numbers)
        for name in names:
            if name not in told and (not queued or finished(sweep.folder / name).get("call") == call):
                told.add(name)
                tell(name)
        if not queued:
            return
        time.sleep(_LOOK)


def _queued(numbers: Sequence[str]) -> bool:
    """Whether Slurm has any of these arrays in its queue; a controller that does not answer counts as yes."""
    command = ["squeue", "--noheader", "--me", "--format=%F"]
    with contextlib.suppress(subprocess.SubprocessError):
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
        return bool(set(said) & set(numbers))
    return True
