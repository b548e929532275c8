"""What is refused before any long work."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mipnb.results.unlearners  # imported before `mipnb.models` is replaced  # noqa: F401
from mipnb.artefacts import project_root
from mipnb.checks import check_inputs
from mipnb.params import Params

EVERYTHING = set(Params.model_fields)
NO_TRIAL = {"trial_text_top_k": 1, "trial_vision_top_k": 1}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A benchmark with ratios 5 and 15, and two models; `mipnb.models` answers by rote."""
    for name in ("forget_5", "forget_15", "forget_x", "base", "vanilla", "second"):
        (tmp_path / name).mkdir()

    def check_model(folder: str, revision: str) -> None:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        if (Path(folder) / "damaged").exists():
            raise ValueError(f"{folder}/damaged is damaged")

    sizes = {"text": (4, 64), "vision": (3, 32)}
    models = SimpleNamespace(check_model=check_model, ffn_sizes=lambda folder, revision: sizes)
    models.check_space = lambda path, n_bytes: None
    monkeypatch.setitem(sys.modules, "mipnb.models", models)
    monkeypatch.setattr("mipnb.models", models, raising=False)
    return {
        "benchmark_dir": str(tmp_path),
        "base_dir": str(tmp_path / "base"),
        "model_dir": str(tmp_path / "vanilla"),
        "second_vanilla_dir": str(tmp_path / "second"),
        "other_ratios": [15],
    } | NO_TRIAL


def test_good_inputs_pass(inputs: dict):
    check_inputs(Params(**inputs, text_top_k=64, vision_top_k=32, layer_index=3), EVERYTHING)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"forget_ratio": 10}, r"forget_ratio = 10.*it has the ratios 5, 15"),
        ({"text_top_k": 65}, "text_top_k = 65: the model has 64 neurons in each of its 4 text layers"),
        ({"vision_top_k": 33}, "vision_top_k = 33: the model has 32 neurons in each of its 3 vision layers"),
        ({"layer_index": 4}, "layer_index = 4: the model has 4 language layers"),
        ({"other_ratios": [15, 7]}, r"other_ratios = \[15, 7\].*no forget_7"),
        ({"trial_vision_top_k": 33}, "trial_vision_top_k = 33: the model has 32 neurons"),
        ({"pointwise_top_k": 40}, "pointwise_top_k = 40: the model has 32 neurons"),
        ({"methods": ["npo", "foo"]}, r"methods \['foo'\] are not known"),
        ({"search": "exact", "rule": "stieltjes"}, "rule 'stieltjes' takes its points from one set a layer"),
    ],
)
def test_values_beyond_the_data_or_the_model_are_refused(inputs: dict, changed: dict, words: str):
    params = Params(**inputs | changed)
    with pytest.raises(ValueError, match=words):
        check_inputs(params, EVERYTHING)
    check_inputs(params, EVERYTHING - set(changed))


@pytest.mark.parametrize("name", ["base_dir", "model_dir"])
def test_a_damaged_model_is_refused_unless_it_is_made_anew(inputs: dict, name: str):
    (Path(inputs[name]) / "damaged").touch()
    with pytest.raises(ValueError, match="is damaged"):
        check_inputs(Params(**inputs), EVERYTHING)
    check_inputs(Params(**inputs, retrain=True), EVERYTHING)
    check_inputs(Params(**inputs), EVERYTHING - {name})


def test_fine_tuning_by_lora_needs_its_base_model(inputs: dict):
    (Path(inputs["base_dir"]) / "damaged").touch()
    with pytest.raises(ValueError, match=r"base_dir = .*base: .*is damaged"):
        check_inputs(Params(**inputs, retrain=True, retrain_by="lora"), EVERYTHING)


def test_a_second_vanilla_model_is_as_sound_and_as_large_as_the_first(inputs: dict, monkeypatch):
    other = {"text": (4, 64), "vision": (2, 32)}
    known = sys.modules["mipnb.models"].ffn_sizes
    sizes = lambda folder, revision: other if folder.endswith("second") else known(folder, revision)  # noqa: E731
    monkeypatch.setattr(sys.modules["mipnb.models"], "ffn_sizes", sizes)
    with pytest.raises(
        ValueError, match=r"second_vanilla_dir = .*'vision': \(2, 32\).*\(3, 32\).*leave it empty"
    ):
        check_inputs(Params(**inputs), EVERYTHING)
    check_inputs(Params(**inputs | {"second_vanilla_dir": ""}), EVERYTHING)
    (Path(inputs["second_vanilla_dir"]) / "damaged").touch()
    with pytest.raises(ValueError, match=r"second_vanilla_dir = .*is damaged"):
        check_inputs(Params(**inputs), EVERYTHING)


@pytest.mark.parametrize("name", ["benchmark_dir", "base_dir", "model_dir", "second_vanilla_dir"])
def test_a_missing_folder_is_named(inputs: dict, name: str):
    params = Params(**inputs | {name: "nowhere/at/all"})
    with pytest.raises(FileNotFoundError, match=f"{name} = nowhere/at/all"):
        check_inputs(params, EVERYTHING)


def test_a_judge_that_is_no_chat_model_is_refused_before_the_run(inputs: dict, tmp_path: Path):
    params = Params(**inputs, judge_dir=str(tmp_path / "base"))
    with pytest.raises(FileNotFoundError, match=r"judge_dir = .*base: there is no model in it"):
        check_inputs(params, EVERYTHING)
    check_inputs(params, EVERYTHING - {"judge_dir"})


def test_sizes_are_checked_before_a_fine_tune_too(inputs: dict):
    for by in ("pocket", "lora"):
        with pytest.raises(ValueError, match="text_top_k = 65"):
            check_inputs(Params(**inputs, text_top_k=65, retrain=True, retrain_by=by), EVERYTHING)


def test_a_gpu_that_is_not_there_is_told_at_once(inputs: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_inputs(Params(**inputs, device="cuda:0"), EVERYTHING)
    with pytest.raises(ValueError, match="device = cuda:1: torch finds 1 GPUs"):
        check_inputs(Params(**inputs, device="cuda:1"), EVERYTHING)


def test_what_checking_loads_does_not_stay_beside_the_notebooks(tmp_path):
    script = f"""
import sys
from mipnb.cli import main
if __name__ == "__main__":
    code = main(["run", "-p", "run_dir", {str(tmp_path / "run")!r}, "-p", "text_top_k", "5000"])
    print(code, {{"torch", "transformers", "pyarrow"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=project_root())
    assert done.stdout == "2 set()\n"
    assert done.stderr.startswith("mipnb: text_top_k = 5000"), done.stderr
