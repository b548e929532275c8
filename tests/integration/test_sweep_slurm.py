"""A sweep of 12 runs on a real one-node Slurm: a worker killed, a notebook that fails, and a second call."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from one_node_slurm import one_node_slurm
from sweep_project import make_project

from mipnb.sweeps.claims import holder
from mipnb.sweeps.plan import read_sweep

COMMAND = """
import argparse, sys
from mipnb.sweeps.command import add_parser
parser = argparse.ArgumentParser()
add_parser(parser.add_subparsers())
options = parser.parse_args(["sweep", "many", *sys.argv[1:]])
sys.exit(options.command(options))
"""


@pytest.fixture(scope="module")
def slurm():
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, one_node_slurm(Path(folder)) as variables:
        yield os.environ | variables


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return tmp_path / "project"


def sweep(environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", COMMAND, "--slurm", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def mark(run: Path, what: str) -> Path:
    """Tells a run's last notebook to wait or to fail."""
    (run / "03_show").mkdir(parents=True)
    (run / "03_show" / what).touch()
    return run / "03_show" / what


def kill_worker(folder: Path, name: str, waits: Path) -> dict:
    """Kills the worker of a run once its last notebook has begun to wait; returns who it was."""
    end = time.monotonic() + 300
    while waits.exists():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    who = holder(folder / ".claims" / f"{name}.0.json")
    os.kill(who["pid"], signal.SIGKILL)
    return who


@pytest.mark.slow
def test_eleven_of_twelve(slurm: dict[str, str], project: Path):
    planned = read_sweep("many")
    killed, failing = planned.runs[0].name, planned.runs[5].name
    waits, fails = (mark(planned.folder / name, what) for name, what in ((killed, "wait"), (failing, "fail")))
    process = sweep(slurm)
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        who = kill_worker(planned.folder, killed, waits)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert "11 of 12 runs complete, 1 failed, 0 without result" in out, out + err
    assert who["job"]
    for words in (failing, "03_show.ipynb", "stopped in cell In [6]", "ValueError: it fails by design"):
        assert words in err
    results = {
        run.name: json.loads((planned.folder / run.name / "run.json").read_text()) for run in planned.runs
    }
    ran = [state for found in results.values() for state in found["notebooks"].values() if state == "ran"]
    made = [path.name.split("-")[0] for path in (planned.folder / ".shelf").glob("0[12]*.json")]
    assert sorted(made) == ["01_numbers"] * 2 + ["02_sum"] * 6
    assert len(ran) <= 2 + 6 + 12
    before = {name: (planned.folder / name / "run.json").stat().st_mtime_ns for name in results}
    fails.unlink()
    process = sweep(slurm)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert "11 complete, 1 to do" in out
    changed = [
        name for name in results if (planned.folder / name / "run.json").stat().st_mtime_ns != before[name]
    ]
    assert changed == [failing]


def test_a_job_asks_for_what_the_file_says(slurm: dict[str, str], project: Path):
    out, err = sweep(slurm, "--no-wait").communicate(timeout=60)
    assert "submitted" in out, err
    try:
        told = subprocess.run(["scontrol", "show", "job"], env=slurm, capture_output=True, text=True).stdout
        assert "ArrayTaskThrottle=2" in told
        assert "TresPerNode=gres:gpu:1" in told
        assert "mem=512M" in told
        assert "Requeue=1" in told
        assert "TimeLimit=00:12:00" in told
        assert "Dependency=afterany:" in told
    finally:
        subprocess.run(["scancel", "--me"], env=slurm, check=True)
