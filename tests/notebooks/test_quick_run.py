"""All notebooks in a chain by `mipnb run`, with the quick parameters, in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mipnb.artefacts import project_root
from mipnb.evaluation import COLUMNS
from mipnb.stages import load_stages

pytestmark = pytest.mark.slow
ROOT = project_root()


def mipnb(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mipnb.cli", "run", *arguments]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run at quick parameters."""
    folder = tmp_path_factory.mktemp("quick") / "run"
    done = mipnb("--params", "quick", "-p", "run_dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_notebook_leaves_what_the_table_says(run: Path):
    for stage in load_stages(ROOT / "notebooks"):
        for name in (*stage.writes, "notebook.ipynb", "record.json", "usage.json"):
            assert (run / stage.name / name).exists(), f"{stage.name}/{name}"


def test_the_results_hold_every_method_and_split(run: Path):
    results = pd.read_parquet(run / "05_evaluation" / "results.parquet")
    assert list(results.columns) == COLUMNS
    assert set(results.method) == {"vanilla", "prune", "edited", "random"}
    assert set(results.split) == {"forget", "retain", "test_forget", "test_retain", "celebrity", "holdout"}
    answers = pd.read_parquet(run / "05_evaluation" / "answers.parquet")
    assert answers[answers.split == "forget"].person_id.nunique() == 10
    assert answers[answers.split == "retain"].person_id.nunique() == 2


def test_the_edited_model_loads_without_mipnb(run: Path):
    script = (
        "import sys, json; from transformers import AutoModelForImageTextToText as M; "
        f"m = M.from_pretrained({str(run / '04_editing' / 'edited_model')!r}); "
        "print(json.dumps([type(m).__name__, 'mipnb' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Qwen2_5_VLForConditionalGeneration", False]


def test_a_path_of_another_model_stops_the_editing(run: Path, tmp_path: Path):
    from mipnb.paths import NeuronPath

    stolen = tmp_path / "run"
    for name in ("01_vanilla_model", "03_paths"):
        (stolen / name).mkdir(parents=True)
        for source in (run / name).iterdir():
            if source.name != "paths":
                (stolen / name / source.name).symlink_to(source)
    (stolen / "03_paths" / "paths").mkdir()
    for source in (run / "03_paths" / "paths").iterdir():
        path = NeuronPath.load(source)
        other = NeuronPath(path.branch, path.layers, path.n_neurons, "0" * 16)
        other.save(stolen / "03_paths" / "paths" / source.name)
    done = mipnb("--params", "quick", "--only", "04", "-p", "run_dir", str(stolen))
    assert done.returncode == 1
    assert "path is of model 0000000000000000" in done.stderr
    assert not (stolen / "04_editing" / "record.json").exists()
