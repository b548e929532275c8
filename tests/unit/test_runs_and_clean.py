"""`mipnb runs` and `mipnb clean` on folders made by hand."""

import argparse
import json
import os
import shutil
from pathlib import Path

import filelock
import pandas as pd
import pytest

from mipnb import cleaning, listing
from mipnb.cleaning import freed
from mipnb.listing import find_runs

STAGES = ["01_numbers", "02_sum", "03_show"]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "notebooks"


def make_run(folder: Path, n_done: int, changed: int, value: float | None = None) -> Path:
    for name in STAGES[:n_done]:
        (folder / name).mkdir(parents=True)
        (folder / name / "params.json").write_text("{}")
        (folder / name / "usage.json").write_text(json.dumps({"seconds": 40.0, "peak_memory_gb": 1}))
        (folder / name / "record.json").write_text("{}")
        os.utime(folder / name / "record.json", (changed, changed))
    if value is not None:
        rows = [("forget", "edited", "accuracy", value), ("retain", "edited", "accuracy", 0.9)]
        table = pd.DataFrame(rows, columns=["split", "method", "metric", "value"])
        table.to_parquet(folder / STAGES[n_done - 1] / "results.parquet")
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    shutil.copytree(FIXTURES, tmp_path / "notebooks")
    (tmp_path / "pyproject.toml").touch()
    runs = tmp_path / "runs"
    make_run(runs / "whole", 3, 3000, 0.25)
    make_run(runs / "half", 2, 2000)
    make_run(runs / "many" / "abc", 3, 1000)
    (runs / "many" / "sweep.json").write_text("{}")
    (runs / "half" / "03_show").mkdir()
    (runs / "half" / "03_show" / "notebook.failed.ipynb").write_text("x" * 100)
    (runs / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    return runs


def call(module, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers())
    options = parser.parse_args(arguments)
    return options.command(options)


def test_runs_have_state_scores_and_time_and_the_latest_is_last(project: Path, capsys):
    found = {run.name: run for run in find_runs(project, STAGES, "edited")}
    assert list(found) == ["many/abc", "half", "whole"]
    assert [run.state for run in found.values()] == ["complete", "failed in 03", "complete"]
    assert [run.seconds for run in found.values()] == [120, 80, 120]
    assert found["whole"].scores == {"forget": 0.25, "kept": 0.9}
    assert call(listing, "runs") == 0
    line = capsys.readouterr().out.splitlines()[3]
    assert line.split()[:5] == ["whole", "complete", "0.250", "0.900", "2:00"]


def test_a_run_under_way_says_so_and_is_not_deleted(project: Path):
    with filelock.FileLock(project / "half" / ".lock"):
        assert {run.name: run.state for run in find_runs(project, STAGES, "edited")}["half"] == "running"
        with pytest.raises(ValueError, match="under way"):
            call(cleaning, "clean", "half", "--yes")
    assert {run.name: run.state for run in find_runs(project, STAGES, "edited")}["half"] == "failed in 03"


def test_clean_shows_then_asks_then_deletes(project: Path, capsys, monkeypatch):
    for answer, there in (("", True), ("no", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert call(cleaning, "clean", "half") == 0
        out = capsys.readouterr().out
        assert out.splitlines()[0].startswith("runs/half")
        assert (project / "half").exists() == there
    assert (project / "whole").exists()


def test_without_a_terminal_nothing_is_deleted(project: Path, monkeypatch, capsys):
    def closed(_):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    call(cleaning, "clean", "whole")
    assert "nothing was deleted" in capsys.readouterr().out
    assert (project / "whole").exists()


def test_leftovers_are_what_no_later_run_needs(project: Path, capsys):
    whole, half = project / "whole" / "01_numbers", project / "half" / "03_show"
    for stage in (whole, half):
        (stage / ".partial" / "scores-1").mkdir(parents=True)
        (stage / "notebook.running.ipynb").touch()
    (half / "params.json").write_text("{}")
    (whole / "notebook.failed.ipynb").touch()
    (whole / ".writing-1").mkdir()
    assert call(cleaning, "clean", "--yes") == 0
    assert sorted(path.name for path in whole.iterdir()) == ["params.json", "record.json", "usage.json"]
    assert sorted(path.name for path in half.iterdir()) == [
        ".partial",
        "notebook.failed.ipynb",
        "params.json",
    ]
    assert call(cleaning, "clean") == 0
    assert "nothing to delete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", FileNotFoundError),
        ("..", ValueError),
        (".", ValueError),
        ("../runs/../notebooks", ValueError),
    ],
)
def test_clean_refuses_what_is_no_run(project: Path, name: str, kind: type):
    with pytest.raises(kind):
        call(cleaning, "clean", name, "--yes")
    assert (project.parent / "notebooks").exists()


def test_shared_files_are_freed_with_their_last_link(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "x").write_text("x" * 1000)
    os.link(tmp_path / "a" / "x", tmp_path / "b" / "x")
    assert freed([tmp_path / "a"]) == 0
    assert freed([tmp_path / "a", tmp_path / "b"]) == 1000
