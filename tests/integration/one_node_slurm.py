"""Slurm on one node, for as long as a test wants it: munge, controller and node daemon as processes of the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo")
CONF = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
JobRequeue=1
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def one_node_slurm(root: Path) -> Iterator[dict[str, str]]:
    """Starts Slurm with one node of four pretended GPUs.

    Args:
        root: an empty folder, its path short (a socket lies in it).

    Yields:
        The environment variable by which Slurm's commands find it. The calling test is skipped, with the reason, where
        Slurm is not installed, may not be started, or does not come up.
    """
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: slurm-wlm and munge)")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts as root only")
    _configure(root)
    variables = {"SLURM_CONF": str(root / "slurm.conf")}
    daemons = []
    try:
        for command in (
            _munged(root),
            ["slurmctld", "-D", "-i"],
            ["slurmd", "-D", "-N", socket.gethostname()],
        ):
            with open(root / f"{command[0]}.log", "w") as log:
                started = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
            daemons.append(started)
            if command[0] == "munged":
                _wait(lambda: (root / "munge.socket").exists(), root)
        _wait(lambda: "idle" in _said(["sinfo", "--noheader", "--format=%T"], variables), root)
        yield variables
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()


def _configure(root: Path) -> None:
    for name in ("state", "spool"):
        (root / name).mkdir(parents=True)
    for number in range(4):
        (root / f"gpu{number}").touch()
    values = {
        "root": root, "host": socket.gethostname(), "cpus": os.cpu_count(), "controller": _port(), "node": _port(),
        "memory": int(psutil.virtual_memory().total / 2**20 * 0.8),
    }  # fmt: skip
    (root / "slurm.conf").write_text(CONF.format(**values))
    (root / "gres.conf").write_text(f"Name=gpu File={root}/gpu[0-3]\n")
    key = root / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)


def _munged(root: Path) -> list[str]:
    files = {
        "socket": "munge.socket",
        "key-file": "munge.key",
        "pid-file": "munge.pid",
        "seed-file": "munge.seed",
    }
    options = [f"--{option}={root / name}" for option, name in files.items()]
    return ["munged", "--foreground", "--force", f"--log-file={root}/munge.log", *options]


def _port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _said(command: list[str], variables: dict[str, str]) -> str:
    return subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, timeout=30
    ).stdout


def _wait(condition, root: Path, seconds: float = 30) -> None:
    """Waits for a daemon; skips the test with what the logs say last if it does not come up."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            last = [path.read_text()[-300:] for path in root.glob("*.log")]
            pytest.skip(f"Slurm does not come up here: {' | '.join(last)}")
        time.sleep(0.2)
