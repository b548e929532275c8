"""Wrong input on the real pocket benchmark and model: told at once, exit code not 0, earlier results untouched."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mipnb.artefacts import project_root
from mipnb.cli import main

POCKET = project_root() / "data" / "pocket"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with an earlier result in it."""
    folder = tmp_path / "run" / "02_attribution"
    folder.mkdir(parents=True)
    (folder / "scores").write_text("earlier")
    return folder.parent


def refused(capsys: pytest.CaptureFixture, run_dir: Path, *arguments: str, code: int = 2) -> str:
    """What is said on standard error; the run must end with the code and leave everything as it was."""
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    found = main(["run", "-p", "run_dir", str(run_dir), *arguments])
    said = capsys.readouterr().err
    assert found == code, said
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in before} == before
    return said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "text_top_k", "100000"], "text_top_k = 100000: the model has"),
        (["-p", "vision_top_k", "100000"], "vision_top_k = 100000: the model has"),
        (["-p", "forget_ratio", "7"], "it has the ratios 5, 10, 15"),
        (["-p", "layer_index", "99"], "layer_index = 99: the model has"),
        (["--only", "04"], "is missing. Notebook 01_vanilla_model makes it"),
    ],
)
def test_values_and_artefacts_that_do_not_exist(capsys, run_dir: Path, arguments: list[str], words: str):
    assert words in refused(capsys, run_dir, *arguments)


def test_a_damaged_shipped_model(capsys, run_dir: Path, tmp_path: Path):
    model = tmp_path / "vanilla"
    shutil.copytree(POCKET / "vanilla", model)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    said = refused(capsys, run_dir, "-p", "model_dir", str(model))
    assert "model.safetensors is damaged: sha256" in said


@pytest.mark.parametrize(
    ("split", "field"),
    [("Full_Set", "Classification_Task"), ("ft_Data", "metadata"), ("Test_Set", "Mask_Task")],
)
def test_a_row_that_lacks_a_field(capsys, run_dir: Path, tmp_path: Path, split: str, field: str):
    benchmark = tmp_path / "benchmark"
    benchmark.mkdir()
    for folder in POCKET.iterdir():
        if folder.name != split:
            (benchmark / folder.name).symlink_to(folder)
    source = next((POCKET / split).glob("*.parquet"))
    table = pq.read_table(source)
    rows = table.to_pylist()
    rows[3][field] = None
    (benchmark / split).mkdir()
    pq.write_table(pa.Table.from_pylist(rows, table.schema), benchmark / split / source.name)
    said = refused(capsys, run_dir, "-p", "benchmark_dir", str(benchmark))
    for words in (str(benchmark / split / source.name), json.dumps(rows[3]["ID"]).strip('"'), field):
        assert words in said
