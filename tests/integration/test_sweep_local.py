"""A sweep as processes of this machine: shared notebooks, a failure, a killed worker, a second call."""

import argparse
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from sweep_project import make_project

from mipnb.sweeps.claims import holder
from mipnb.sweeps.command import add_parser
from mipnb.sweeps.plan import read_sweep

SMALL = """
name: many
grid: {batch_size: [4, 8]}
runs: [{steering_scale: 3.0}]
processes: 2
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_project(tmp_path / "project", SMALL))
    return tmp_path / "project"


def sweep(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["sweep", "many", *arguments])
    return options.command(options)


def result(folder: Path, name: str) -> dict:
    return json.loads((folder / name / "run.json").read_text())


def test_what_is_shared_what_fails_and_what_a_second_call_does(project: Path, capsys):
    planned = read_sweep("many")
    four, eight, scaled = (run.name for run in planned.runs)
    (planned.folder / eight / "03_show").mkdir(parents=True)
    (planned.folder / eight / "03_show" / "fail").touch()
    assert sweep() == 1
    out, err = capsys.readouterr()
    assert "2 of 3 runs complete, 1 failed" in out
    assert f"run {eight} (batch_size 8)" in err
    assert "stopped in cell In [6]" in err
    assert "ValueError: it fails by design" in err
    states = [result(planned.folder, name)["notebooks"] for name in (four, eight, scaled)]
    assert sum(found["01_numbers"] == "ran" for found in states) == 1
    assert sum(found["02_sum"] == "ran" for found in states) == 2
    first, second = (planned.folder / name / "02_sum" / "sum.json" for name in (four, eight))
    assert first.stat().st_ino == second.stat().st_ino
    assert json.loads((planned.folder / eight / "02_sum" / "params.json").read_text())["run_dir"].endswith(
        eight
    )
    assert json.loads((planned.folder / scaled / "03_show" / "shown.json").read_text())["total"] == 3 * 174

    (planned.folder / eight / "03_show" / "fail").unlink()
    assert sweep() == 0
    out, err = capsys.readouterr()
    assert "2 complete, 1 to do" in out
    assert (err, result(planned.folder, eight)["notebooks"]["02_sum"]) == ("", "up to date")
    assert "3 of 3 runs complete" in out
    assert (planned.folder / "results.parquet").is_file()
    assert (planned.folder / "figures" / "sweep_parallel.svg").is_file()
    assert sweep("--list") == 0
    assert capsys.readouterr().out.count("complete") == 3


def test_a_killed_workers_run_is_done_by_another(project: Path, capsys):
    planned = read_sweep("many")
    name = planned.runs[1].name
    waits = planned.folder / name / "03_show" / "wait"
    waits.parent.mkdir(parents=True)
    waits.touch()

    def kill() -> None:
        while waits.exists():
            time.sleep(0.05)
        os.kill(holder(planned.folder / ".claims" / f"{name}.0.json")["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert sweep() == 0
    killer.join()
    assert "3 of 3 runs complete" in capsys.readouterr().out
    assert (planned.folder / ".claims" / f"{name}.1.json").is_file()


def test_no_wait_belongs_to_slurm(project: Path):
    with pytest.raises(ValueError, match="goes with --slurm"):
        sweep("--no-wait")
