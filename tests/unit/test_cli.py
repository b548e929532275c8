"""The command line itself."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mipnb
from mipnb.cli import main


def test_version(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mipnb {mipnb.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--onl", "3"], ["run", "-p", "seed"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: mipnb" in capsys.readouterr().err


def test_listing_loads_no_model_library(tmp_path: Path):
    code = (
        "import sys\nfrom mipnb.cli import main\nassert main(['run', '--list']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'pandas', 'papermill') if name in sys.modules])"
    )
    shutil.copytree(Path(__file__).resolve().parents[1] / "fixtures" / "notebooks", tmp_path / "notebooks")
    (tmp_path / "pyproject.toml").touch()
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "01_numbers  to run" in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch):
    """A pocket benchmark of two files."""

    def build(out: Path, seed: int) -> None:
        (out / "Full_Set").mkdir(parents=True, exist_ok=True)
        (out / "Full_Set" / "people.txt").write_text(f"seed {seed}")
        (out / "README").write_text("x")

    monkeypatch.setitem(sys.modules, "mipnb.pocket.build", SimpleNamespace(build=build))


@pytest.mark.usefixtures("builder")
def test_the_pocket_benchmark_is_built_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "pocket"
    assert main(["build-pocket", "--out", str(out), "--check"]) == 1
    assert main(["build-pocket", "--out", str(out)]) == 0
    assert (out / "Full_Set" / "people.txt").read_text() == "seed 42"
    (out / "a_model_beside_it").touch()
    assert main(["build-pocket", "--out", str(out), "--check"]) == 0
    (out / "Full_Set" / "people.txt").write_text("seed 43")
    (out / "README").unlink()
    capsys.readouterr()
    assert main(["build-pocket", "--out", str(out), "--check"]) == 1
    captured = capsys.readouterr()
    assert "people.txt: differs from" in captured.err
    assert "README: is missing" in captured.err
    assert "0 of 2 files are the same" in captured.out
