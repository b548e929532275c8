"""Files written whole or not at all, and found from anywhere."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mipnb import artefacts
from mipnb.artefacts import atomic_path, project_root, read_json, require, sha256, stage_dir, write_json
from mipnb.records import load_record, save_record


def test_a_file_appears_whole(tmp_path: Path):
    target = tmp_path / "new" / "table.csv"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("a")
        assert not target.exists()
    assert target.read_text() == "a"
    assert os.listdir(target.parent) == ["table.csv"]


def test_an_error_leaves_what_was_there(tmp_path: Path):
    target = tmp_path / "table.csv"
    target.write_text("old")

    def write():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_folder_replaces_a_folder(tmp_path: Path):
    for name in ("old", "new"):
        with atomic_path(tmp_path / "model") as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert os.listdir(tmp_path / "model") == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_nothing_written_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_path(tmp_path / "x"):
        pass


def test_json_goes_there_and_back(tmp_path: Path):
    value = {"b": [1, 2.5, None, True], "a": "é"}
    path = write_json(tmp_path / "x.json", value)
    assert read_json(path) == value
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert "é" in path.read_text(encoding="utf-8")


def test_json_has_no_nan(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_damaged_json_is_named(tmp_path: Path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")


def test_digest_follows_the_content(tmp_path: Path):
    file = tmp_path / "x"
    for text in ("one", "three"):
        file.write_text(text)
        assert sha256(file) == hashlib.sha256(text.encode()).hexdigest()


def test_a_missing_artefact_names_its_maker(tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=r"scores\.safetensors.*02_attribution.*mipnb run --only 02_attribution"
    ):
        require(tmp_path / "scores.safetensors", made_by="02_attribution")
    assert require(tmp_path, made_by="x") == tmp_path


def project(folder: Path) -> Path:
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    return folder


def test_the_root_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(tmp_path / "clone")
    monkeypatch.chdir(root / "notebooks")
    assert project_root() == root
    assert stage_dir("runs/pocket", "02_attribution") == root / "runs" / "pocket" / "02_attribution"
    assert stage_dir(tmp_path / "else", "a") == tmp_path / "else" / "a"
    assert (tmp_path / "else" / "a").is_dir()


def test_elsewhere_the_root_is_where_mipnb_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert project_root() == Path(artefacts.__file__).resolve().parents[1]


def test_a_record_is_the_same_bytes_every_time_and_a_plain_safetensors_file(tmp_path: Path):
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 5, dtype=torch.bfloat16)}
    fields = {"zwei": "ü", "one": [1, None]}
    files = [save_record(tmp_path / f"{n}.safetensors", "test-1", tensors, fields) for n in range(20)]
    assert len({file.read_bytes() for file in files}) == 1
    loaded, told = load_record(files[0], "test-1")
    assert told == fields
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert load_file(files[0]).keys() == tensors.keys()
