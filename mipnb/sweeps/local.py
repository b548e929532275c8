"""A sweep's runs on this machine: one process a run, a bound on how many at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from mipnb.sweeps.plan import Sweep

__all__ = ["LOG", "run_local"]

LOG = "worker.log"  # of a run's folder: what its worker printed


def run_local(sweep: Sweep, names: Sequence[str], call: str, tell: Callable[[str], None]) -> None:
    """Has runs done by worker processes, in the order given, and waits for them.

    Args:
        sweep: stored, see `Sweep.store`.
        names: of the runs.
        call: of `mipnb sweep`.
        tell: told the name of each run whose process has ended, however it ended.
    """
    waiting, running = list(names), {}
    try:
        while waiting or running:
            while waiting and len(running) < sweep.file.processes:
                running[waiting[0]] = _start(sweep, waiting[0], call)
                del waiting[0]
            for name in [name for name, process in running.items() if process.poll() is not None]:
                del running[name]
                tell(name)
            time.sleep(0.05)
    finally:
        for process in running.values():
            process.terminate()


def _start(sweep: Sweep, name: str, call: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mipnb.sweeps.worker", str(sweep.folder), name, call]
    folder = sweep.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
