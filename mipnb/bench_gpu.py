"""The run on a GPU, measured: `mipnb bench gpu`.

The pocket run, then a full-size model of random weights through the same notebooks: locating, two edit steps, evaluating.
Random weights take the time and memory that trained ones do, and need no download; what they score means nothing.
"""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from mipnb.artefacts import atomic_path, project_root, read_json, under_root
from mipnb.batches import encode
from mipnb.benchmarks import draw_questions, forget_ids, load_training
from mipnb.comparing import question_of
from mipnb.locating import of_modality
from mipnb.models import load_processor, save_model
from mipnb.param_files import read_parameters
from mipnb.passes import Question
from mipnb.planner import GPUS, plan, read_plan
from mipnb.report import USAGE
from mipnb.shapes import MODELS
from mipnb.workload import MODALITIES

LIKE, BASE, BENCHMARK = "data/pocket/vanilla", "data/pocket/base", "data/pocket"
POCKET = "pocket"
STAGES = {"locating": "02_attribution", "editing": "04_editing", "evaluating": "05_evaluation"}
#: Few questions, few steps: what a step takes does not depend on how many there are
FEW = {
    "n_locate_forget": 8, "n_locate_retain": 8, "edit_steps": 2, "n_edit_seeds": 1, "n_random_edits": 1,
    "n_forget_batches": 2, "n_retain_batches": 2, "n_eval_retain": 1, "max_new_tokens": 8, "eval_batch_size": 128,
    "check_dtypes": False, "retrain": False, "benchmark": "mllmu",
}  # fmt: skip
SIDE = 224  # pixels a picture is enlarged to, what the planner assumes of MLLMU-Bench


def random_model(config_file: Path, like: Path, folder: Path, device: str, dtype: str) -> Path:
    """Saves a model of a published configuration with random weights, and another model's tokenizer.

    Args:
        config_file: the configuration, JSON as in `params/models`.
        like: folder of a model of the same family, whose words and picture preparation it gets.
        folder: where to; one that is there already is left as it is.
        device: where the weights are drawn.
        dtype: of the weights.

    Raises:
        ValueError: the two are not of one family.
    """
    if (folder / "config.json").exists():
        return folder
    config, processor = AutoConfig.from_pretrained(config_file), load_processor(like)
    known = AutoConfig.from_pretrained(like)
    if config.model_type != known.model_type:
        raise ValueError(
            f"{config_file.name} is a {config.model_type}, {like} a {known.model_type}: expected one family; "
            "give --like a model of that family"
        )
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(config, name, getattr(known, name))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.get_text_config(), name, getattr(known.get_text_config(), name))
    processor.image_processor.size = {"shortest_edge": SIDE**2, "longest_edge": SIDE**2}
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    return save_model(model, processor, folder)


def measured(run: Path, name: str) -> pd.DataFrame:
    """Columns run, notebook, seconds (its kernel's start to its end), gpu_gb (peak allocated), of a finished run."""
    files = sorted(run.glob(f"*/{USAGE}"))
    rows = [
        (name, file.parent.name, *map(read_json(file).get, ("seconds", "peak_gpu_memory_gb")))
        for file in files
    ]
    return pd.DataFrame(rows, columns=["run", "notebook", "seconds", "gpu_gb"])


def planned(
    files: Iterable[str], given: Mapping[str, object], questions: tuple[Question, Question]
) -> dict[str, float]:
    """The planner's peak on a GPU of 80 GB, GiB, by notebook, for questions of these sizes (text, with a picture)."""
    params = read_parameters([project_root() / "params" / f"{file}.yaml" for file in files], given)
    shape, work = read_plan(params)
    steps = plan(params, shape, replace(work, questions=questions), GPUS[-1:])
    return {STAGES[step.name]: step.peak / 2**30 for step in steps}


def sizes(model_dir: Path, benchmark: str, count: int) -> tuple[Question, Question]:
    """Sizes of a text and an image question, by the longest of so many of the people to forget."""
    root, processor = under_root(benchmark), load_processor(model_dir)
    drawn = draw_questions(load_training(root, ids=forget_ids(root, 5)), count, seed=42)
    batches = [[encode(processor, of_modality(drawn, modality))] for modality in MODALITIES]
    return tuple(map(question_of, batches))


def _run(name: str, files: Iterable[str], given: Mapping[str, object]) -> Path:
    """`mipnb run` in a process of its own."""
    options = [word for file in files for word in ("--params", file)]
    options += [word for item in given.items() for word in ("-p", *map(_word, item))]
    code = "import sys; from mipnb.cli import main; sys.exit(main())"
    subprocess.run(
        [sys.executable, "-c", code, "run", "--name", name, *options], check=True, cwd=project_root()
    )
    return project_root() / "runs" / name


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def run(options: Namespace) -> int:
    """Runs, prints and writes `gpu.csv`; rows of runs that are not made again stay."""
    path = under_root(options.out) / "gpu.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    for model in options.model or (POCKET, "qwen2.5-vl-3b"):
        found = _pocket(options) if model == POCKET else _full_size(model, options)
        found.insert(
            0, "device", torch.cuda.get_device_name() if torch.cuda.is_available() else options.device
        )
        with atomic_path(path) as temporary:
            _beside(path, found).to_csv(temporary, index=False, float_format="%.6g")
    print(f"{pd.read_csv(path).to_string(index=False)}\nwrote {path}")
    return 0


def _beside(path: Path, found: pd.DataFrame) -> pd.DataFrame:
    """The rows of a file that are of other runs, and those found."""
    if not path.exists():
        return found
    before = pd.read_csv(path)
    return pd.concat([before[~before.run.isin(found.run)], found], ignore_index=True)


def _pocket(options: Namespace) -> pd.DataFrame:
    run = _run("gpu_pocket", (), {"device": options.device})
    return measured(run, "pocket, float32").assign(planned_gb=float("nan"))


def _full_size(model: str, options: Namespace) -> pd.DataFrame:
    """One full-size model's notebooks, with the planner's peak beside the measured one."""
    folder = under_root(options.out) / model
    config = project_root() / MODELS / f"{model}-instruct.json"
    random_model(config, under_root(LIKE), folder, options.device, "bfloat16")
    given = FEW | {
        "model_dir": folder,
        "base_dir": folder,
        "benchmark_dir": BENCHMARK,
        "device": options.device,
    }
    found = measured(_run(f"gpu_{model}", [f"{model}_mllmu"], given), f"{model}, bfloat16, random weights")
    asked = sizes(folder, BENCHMARK, FEW["n_locate_forget"])
    return found.assign(planned_gb=found.notebook.map(planned([f"{model}_mllmu"], given, asked)))
