"""All notebooks in a chain by `mipnb run`, with the quick parameters, in a folder of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mipnb.artefacts import PARTIAL, project_root
from mipnb.edits import Edit, same_bits
from mipnb.evaluation import COLUMNS
from mipnb.scores import Scores
from mipnb.stages import find_stage, load_stages

pytestmark = pytest.mark.slow
ROOT = project_root()
COMMAND = [sys.executable, "-m", "mipnb.cli", "run"]


def mipnb(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"TQDM_DISABLE": "1", "GOMP_SPINCOUNT": "0"} | variables
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run at quick parameters, its pieces kept, on one thread: sums depend on how they are divided."""
    folder = tmp_path_factory.mktemp("quick") / "run"
    done = mipnb("--params", "quick", "--keep-partial", "-p", "run_dir", str(folder), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_notebook_leaves_what_the_table_says(run: Path):
    for stage in (stage for stage in load_stages(ROOT / "notebooks") if not stage.optional):
        for name in (*stage.writes, "notebook.ipynb", "record.json", "usage.json"):
            assert (run / stage.name / name).exists(), f"{stage.name}/{name}"


@pytest.mark.parametrize("name", ["02_attribution", "04_editing", "05_evaluation"])
def test_pieces_are_kept_on_demand(run: Path, name: str):
    pieces = list((run / name / PARTIAL).rglob("*.*"))
    assert pieces
    assert all(piece.parent.parent.name == PARTIAL for piece in pieces), (
        "files that processes shared are gone"
    )


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


def test_edits_that_two_processes_share_are_those_of_one(run: Path, tmp_path: Path):
    shared = tmp_path / "shared"
    for name in ("01_vanilla_model", "03_paths"):
        shutil.copytree(run / name, shared / name)
    arguments = ["--params", "quick", "-p", "processes", "2", "-p", "run_dir", str(shared)]
    assert mipnb(*arguments, "--only", "04", OMP_NUM_THREADS="2").returncode == 0
    for name in ("edited_42", "random_42"):
        one, two = (
            Edit.load(place / "04_editing" / "edits" / f"{name}.safetensors") for place in (run, shared)
        )
        assert one.metadata == two.metadata
        for part, other in zip(one.slices, two.slices, strict=True):
            assert (part.name, part.axis) == (other.name, other.axis)
            assert same_bits(part.neurons, other.neurons)
            assert same_bits(part.new, other.new), f"{name}, {part.name}"
    assert not (shared / "04_editing" / PARTIAL).exists(), "batches that were shared are gone"
    assert mipnb(*arguments, "--only", "05", OMP_NUM_THREADS="2").returncode == 0
    files = [place / "05_evaluation" / "answers.parquet" for place in (run, shared)]
    one, two = (pd.read_parquet(file) for file in files)
    columns = ["method", "seed", "split", "task", "person_id", "prompt"]
    pd.testing.assert_frame_equal(one[columns], two[columns])


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


def test_plain_papermill_takes_a_parameter_and_what_earlier_notebooks_left(run: Path, tmp_path: Path):
    from mipnb.paths import NeuronPath

    for name in ("01_vanilla_model", "02_attribution"):
        shutil.copytree(run / name, tmp_path / "run" / name)
    command = [sys.executable, "-m", "papermill", "notebooks/03_paths.ipynb", str(tmp_path / "out.ipynb")]
    given = ["-k", "python3", "-f", str(run / "03_paths" / "params.json")]
    given += ["-p", "run_dir", str(tmp_path / "run"), "-p", "text_top_k", "3"]
    few = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True, env=few)
    assert done.returncode == 0, done.stderr
    found = NeuronPath.load(tmp_path / "run" / "03_paths" / "paths" / "text.safetensors")
    assert set(found.sizes) == {3}


def test_locating_follows_the_value_where_the_rule_says_so(run: Path, tmp_path: Path):
    shutil.copytree(run / "01_vanilla_model", tmp_path / "run" / "01_vanilla_model")
    given = {
        "run_dir": str(tmp_path / "run"),
        "rule": "stieltjes",
        "search": "greedy",
        "check_dtypes": "false",
    }
    options = [word for pair in given.items() for word in ("-p", *pair)]
    done = mipnb("--params", "quick", "--only", "02", *options, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = Scores.load(tmp_path / "run" / "02_attribution" / "scores" / "forget_text.safetensors")
    assert found.parameters["rule"] == "stieltjes"


def test_a_notebook_killed_in_the_middle_goes_on_where_it_was(run: Path, tmp_path: Path):
    stopped = tmp_path / "run"
    shutil.copytree(run / "01_vanilla_model", stopped / "01_vanilla_model")
    arguments = ["--params", "quick", "--only", "02", "-p", "run_dir", str(stopped), "-p", "batch_size", "1"]
    first = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    kept = _kept(stopped / "02_attribution", first)
    first.kill()
    first.wait()
    assert not (stopped / "02_attribution" / "record.json").exists()
    again = set()
    second = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    while second.poll() is None:
        again |= {file for file, made in kept.items() if file.exists() and file.stat().st_mtime_ns != made}
        time.sleep(0.02)
    assert second.returncode == 0
    assert not again, "pieces that were there are not made again"
    assert not any(file.exists() for file in kept), "what is through needs no pieces"
    for name in ("forget_text", "retain_vision"):
        files = [place / "02_attribution" / "scores" / f"{name}.safetensors" for place in (run, stopped)]
        one, other = (Scores.load(file).values for file in files)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def _kept(stage: Path, process: subprocess.Popen) -> dict[Path, int]:
    """Waits for some pieces of a notebook's result; returns their files with the times of writing."""
    while process.poll() is None:
        files = list((stage / PARTIAL).rglob("*.safetensors"))
        if len(files) >= 3:
            return {file: file.stat().st_mtime_ns for file in files}
        time.sleep(0.02)
    raise AssertionError(f"the run ended with {process.returncode} before three pieces were there")


@pytest.fixture(scope="module")
def baselines(run: Path) -> Path:
    """What notebook 06 leaves for 10 and 11: two methods of two seeds, ten people to forget and four to keep."""
    results = pd.read_parquet(run / "05_evaluation" / "results.parquet")
    folder, random = run / "06_baselines", np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    results.to_parquet(folder / "results.parquet", index=False)
    keys = ["method", "seed", "forget_ratio"]
    made = pd.DataFrame(
        [(m, s, 5) for m in ("vanilla", "edited", "retrained") for s in (42, 43)], columns=keys
    )
    places = pd.DataFrame(
        {"branch": ["text", "text", "vision"], "modality": ["text", "image_text", "image_text"]}
    )
    splits = pd.DataFrame({"split": ["forget", "retain"]})
    residuals = (
        made.merge(places, how="cross")
        .merge(splits, how="cross")
        .merge(pd.DataFrame({"layer": [0, 1]}), how="cross")
    )
    moved = random.random(len(residuals)) * (residuals.method != "vanilla")
    residuals.assign(value=moved, activation=moved).to_parquet(folder / "residuals.parquet", index=False)
    people = [("forget", f"f{i}") for i in range(10)] + [("retain", f"r{i}") for i in range(4)]
    asked = pd.DataFrame(
        [(*person, f"q{i}") for person in people for i in range(3)],
        columns=["split", "person_id", "question"],
    )
    logits = made.merge(asked, how="cross").merge(
        pd.DataFrame({"modality": ["text", "image_text"]}), how="cross"
    )
    features = random.normal(size=(len(logits), 12)).astype("float32")
    features[(logits.method == "edited") & (logits.split == "forget"), 0] += 30
    logits.assign(features=list(features)).to_parquet(folder / "logits.parquet", index=False)
    return folder


@pytest.mark.parametrize("number", ["08", "09", "10", "11", "12"])
def test_the_results_follow_from_a_quick_run(run: Path, baselines: Path, number: str):
    stage = find_stage(load_stages(ROOT / "notebooks"), number)
    for name in {name for read in stage.reads for name in _written(read)}:
        if not (run / name).exists():
            (run / name).touch()  # of notebook 06, what 10 and 11 do not open
    count = "2" if number in ("09", "12") else "1"  # processes, with a thread each
    options = ["--only", number, "-p", "run_dir", str(run), "-p", "processes", count]
    done = mipnb("--params", "quick", *options, OMP_NUM_THREADS=count)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in stage.writes:
        assert len(pd.read_parquet(run / stage.name / name)) > 0
    assert list((run / stage.name / "figures").glob(f"fig{number}_*.pdf"))


def _written(stage: str) -> list[str]:
    return [f"{stage}/{name}" for name in find_stage(load_stages(ROOT / "notebooks"), stage).writes]


def test_the_classifier_sees_what_the_tables_hold(run: Path):
    table = pd.read_parquet(run / "11_telling_apart" / "summary.parquet").set_index(
        ["modality", "method", "measure"]
    )
    assert table.value["text", "edited", "auc"] > 0.9
    assert table.risk["text", "edited", "auc"] > 0.2
    assert abs(table.value["text", "vanilla", "auc"] - 0.5) < 0.3
