"""What is kept of the published run: whole, told from another run's, and laid out where a run lies."""

from pathlib import Path

import pytest

from mipnb.kept_run import keep, kept_stages, latest, lay_out, mismatches
from mipnb.stages import Stage


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """A project of two notebooks, the second of which leaves nothing to read."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "run/01_a/record.json": "{}",
        "run/01_a/a.csv": "x\n1\n",
        "run/02_b/record.json": "{}",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "run" / "01_a" / "items" / "unit").mkdir(parents=True)
    (tmp_path / "run" / "01_a" / "items" / "unit" / "key.json").write_text("{}")
    (tmp_path / "run" / "01_a" / "log.txt").write_text("long")
    return [Stage("01_a", tmp_path / "01_a.ipynb", writes=("a.csv",)), Stage("02_b", tmp_path / "02_b.ipynb")]


def test_records_artefacts_and_units_are_kept_and_nothing_else(stages: list[Stage], tmp_path: Path):
    place = keep(stages, tmp_path / "run", "kept")
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert found == {"01_a/record.json", "01_a/a.csv", "01_a/items/unit/key.json"}
    assert [stage.name for stage in kept_stages(stages, "kept")] == ["01_a"]


def test_a_notebook_that_leaves_nothing_is_kept_without_a_folder(stages: list[Stage], tmp_path: Path):
    assert not keep(stages[1:], tmp_path / "run", "kept").exists()


def test_what_was_kept_before_goes(stages: list[Stage], tmp_path: Path):
    keep(stages, tmp_path / "run", "kept")
    (tmp_path / "kept" / "01_a" / "old.csv").touch()
    (tmp_path / "kept" / "03_c").mkdir()
    keep(stages, tmp_path / "run", "kept")
    assert not (tmp_path / "kept" / "01_a" / "old.csv").exists()
    assert (tmp_path / "kept" / "03_c").is_dir(), "of a notebook that this run does not have"


def test_what_a_run_lacks_is_that_of_what_is_kept(stages: list[Stage], tmp_path: Path):
    kept = keep(stages, tmp_path / "run", "kept")
    (tmp_path / "next" / "01_a").mkdir(parents=True)
    (tmp_path / "next" / "02_b").mkdir()
    (tmp_path / "next" / "02_b" / "record.json").touch()
    following = tmp_path / "next"
    assert latest(following, "01_a", place="kept") == kept / "01_a", "begun, not done"
    assert latest(following, "02_b", place="kept") == following / "02_b"
    assert latest(following, "03_c", place="kept") == following / "03_c", "nowhere"
    (following / "01_a" / "record.json").touch()
    assert latest(following, "01_a", place="kept") == following / "01_a"
    assert latest(following, "01_a", {"02_b"}, "kept") == kept / "01_a", "done, but not among those taken"


def test_laid_out_beside_what_is_there(stages: list[Stage], tmp_path: Path):
    (tmp_path / "other" / "03_c").mkdir(parents=True)
    run = lay_out(keep(stages, tmp_path / "run", "kept"), tmp_path / "other")
    assert (run / "01_a" / "a.csv").read_text() == "x\n1\n"
    assert (run / "03_c").is_dir()


def test_other_parameters_data_or_sources_are_told_and_code_is_not(stages, tmp_path, monkeypatch):
    keep(stages, tmp_path / "run", "kept")
    told = [
        "parameters changed: seed",
        "code changed: editing.py",
        "notebook changed",
        "outputs changed: a.csv",
    ]
    monkeypatch.setattr("mipnb.kept_run.stale_reasons", lambda *_: told)
    assert mismatches(stages, "kept") == [
        "01_a: parameters changed: seed",
        "01_a: notebook changed",
        "01_a: outputs changed: a.csv",
    ]
