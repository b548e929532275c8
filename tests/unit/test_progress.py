"""Bars, lines or nothing; and what a notebook says before it works."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub.utils import disable_progress_bars

from mipnb import progress as module
from mipnb.artefacts import PARTIAL
from mipnb.beginning import begin
from mipnb.progress import LINES, clock, progress


@pytest.fixture
def outside_pytest(monkeypatch):
    for name in ("PYTEST_VERSION", "TQDM_DISABLE", "MIPNB_PROGRESS"):
        monkeypatch.delenv(name, raising=False)


def count(total: int = 4) -> None:
    with progress(total, "locating") as bar:
        for _ in range(total):
            bar.update()


@pytest.mark.usefixtures("outside_pytest")
def test_a_terminal_gets_a_bar_with_the_time_left(capsys):
    disable_progress_bars()  # as mipnb.models does for those of loading
    count()
    err = capsys.readouterr().err
    assert "locating" in err
    assert "0/4" in err
    assert "<" in err  # elapsed<remaining


@pytest.mark.parametrize("name", ["TQDM_DISABLE", "PYTEST_VERSION"])
def test_silence_where_outputs_are_compared(name: str, outside_pytest, monkeypatch, capsys):
    monkeypatch.setenv(name, "1")
    count()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("outside_pytest")
def test_batch_gets_lines_and_none_for_short_work(monkeypatch, capsys):
    monkeypatch.setenv(*next(iter(LINES.items())))
    count()
    assert capsys.readouterr().err == ""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress(10, "locating", done=4) as bar:
        for _ in range(6):
            now[0] += 20.0
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "locating: 5 of 10, 20 s, 1:40 min left"
    assert lines[-1] == "locating: 10 of 10, 2:00 min, 0 s left"


def test_kernels_of_a_run_print_lines():
    from mipnb.ahead import Kernel

    spec = Kernel().kernel_spec
    assert spec.env["MIPNB_PROGRESS"] == "lines"
    assert spec.argv[0] == sys.executable


def test_times_are_said_as_people_say_them():
    assert [clock(s) for s in (0.4, 59, 200, 7500)] == ["0 s", "59 s", "3:20 min", "2:05 h"]


def test_a_notebook_says_what_it_does_how_long_it_took_and_what_it_skips(tmp_path: Path):
    said = begin(
        tmp_path, "locate 8 questions", {"training anew (retrain)": True, "number types": False}
    ).data
    assert "locate 8 questions" in said
    assert "not known" in said
    assert "training anew" in said
    assert "number types" not in said
    assert "Goes on" not in said
    (tmp_path / "usage.last.json").write_text(json.dumps({"seconds": 200.0, "peak_memory_gb": 0.7}))
    (tmp_path / PARTIAL / "scores-1").mkdir(parents=True)
    (tmp_path / PARTIAL / "scores-1" / "000000.safetensors").touch()
    said = begin(tmp_path, "locate").data
    assert "3:20 min and 0.7 GB" in said
    assert "Skipped:** nothing" in said
    assert "1 finished pieces" in said
    (tmp_path / "usage.json").write_text(json.dumps({"seconds": 5.0, "peak_memory_gb": 0.7}))
    assert "took 5 s" in begin(tmp_path, "locate").data
