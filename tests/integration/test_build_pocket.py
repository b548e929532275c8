"""The shipped pocket benchmark is built again, byte for byte, and a single other byte is noticed."""

import shutil

import pytest

from mipnb.artefacts import project_root
from mipnb.cli import main
from mipnb.pocket import build as building

SHIPPED = project_root() / "data" / "pocket"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What is built, made once by the command itself."""
    return tmp_path_factory.mktemp("built") / "pocket"


@pytest.fixture
def once(built, monkeypatch):
    """Building, whose second call copies what the first one made."""
    build = building.build

    def build_or_copy(out, seed):
        if not built.exists():
            build(built, seed)
        shutil.copytree(built, out, dirs_exist_ok=True)

    monkeypatch.setattr(building, "build", build_or_copy)


@pytest.mark.usefixtures("once")
def test_the_shipped_files_are_what_is_built_and_a_changed_byte_is_found(built, tmp_path, capsys):
    assert main(["build-pocket", "--check"]) == 0
    files = [path.relative_to(built) for path in built.rglob("*") if path.is_file()]
    assert len(files) == 12
    assert f"12 of 12 files are the same in {SHIPPED}" in capsys.readouterr().out
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SHIPPED / file, tmp_path / file)
    changed = tmp_path / "Full_Set" / "train-00000-of-00001.parquet"
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    assert main(["build-pocket", "--check", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert f"{changed}: differs from what is built" in told.err
    assert "11 of 12 files are the same" in told.out
