"""What a GPU takes, measured: `mipnb bench gpu`.

The pocket run, notebook by notebook; and a full-size model of random weights through locating, two steps of learning gates,
two edit steps and some answers, beside the planner's figures where it has any. Random weights take the time and memory of
trained ones and need no download.
"""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from pydantic import BaseModel
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig

from mipnb import trials
from mipnb.artefacts import atomic_path, project_root, read_json, under_root
from mipnb.batches import Batch, encode
from mipnb.benchmarks import Question, draw_questions, forget_ids, load_training
from mipnb.comparing import question_of
from mipnb.editing import edit
from mipnb.generation import generate
from mipnb.learned_gates import learn_path
from mipnb.locating import PAIRS, locate, of_modality
from mipnb.models import BRANCHES, ffns, load_processor
from mipnb.param_files import read_parameters
from mipnb.paths import NeuronPath, select
from mipnb.planner import GPUS, locating_peaks, plan
from mipnb.report import USAGE
from mipnb.shapes import MODELS, read_shape
from mipnb.workload import MODALITIES, read_workload

POCKET, LIKE, BENCHMARK = "pocket", "data/pocket/vanilla", "data/pocket"
LOCATED, ANSWERED = 8, 128  # questions a modality
GATE_STEPS = 2
SIDE = 224  # pixels that a picture is enlarged to, what the planner assumes of MLLMU-Bench
_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def random_model(config_file: Path, like: Path, device: str, dtype: str) -> tuple[nn.Module, object]:
    """A model of a published configuration with random weights, and a processor with another model's words.

    Args:
        config_file: the configuration, JSON as in `params/models`.
        like: folder of a model of the same family, whose tokenizer and picture preparation it gets.
        device: where the weights are drawn.
        dtype: of the weights.

    Raises:
        ValueError: the two are not of one family.
    """
    config, known = AutoConfig.from_pretrained(config_file), AutoConfig.from_pretrained(like)
    if config.model_type != known.model_type:
        raise ValueError(
            f"{config_file.name} is a {config.model_type}, {like.name} a {known.model_type}: expected one family"
        )
    for name in _IDS:
        setattr(config, name, getattr(known, name))
    processor = enlarging(like)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    return model.eval().requires_grad_(False), processor


def enlarging(like: Path) -> object:
    """A model's processor, its pictures enlarged to `SIDE` pixels."""
    processor = load_processor(like)
    processor.image_processor.size = {"shortest_edge": SIDE**2, "longest_edge": SIDE**2}
    return processor


def measured(work: Callable[[], object], device: str) -> tuple[object, float, float]:
    """What some work returns, its seconds, and its peak of allocated GPU memory, GiB (NaN without a GPU)."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    found = work()
    if on_gpu:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan")
    return found, time.perf_counter() - started, peak


class FullSize:
    """A model of random weights, and what it is asked: training questions of the pocket people."""

    def __init__(self, model: nn.Module, processor: object, params: BaseModel) -> None:
        self.model, self.processor, self.params = model, processor, params
        root = under_root(BENCHMARK)
        self.questions = draw_questions(
            load_training(root, ids=forget_ids(root, 5)), ANSWERED, seed=params.seed
        )
        self.paths: dict[str, NeuronPath] = {}

    def of(self, modality: str, count: int) -> list[Question]:
        """So many questions of a modality."""
        return of_modality(self.questions, modality)[:count]

    def locate(self, pair: str) -> None:
        """Locates a branch on a modality, as notebook 02 does, and keeps its path."""
        p, (branch, modality) = self.params, PAIRS[pair]
        top_k = p.text_top_k if branch == "text" else p.vision_top_k
        own = {name: getattr(p, name) for name in ("score", "search", "rule", "n_steps")}
        kind = p.vision_kind if branch == "vision" else "igi"
        asked = self.of(modality, LOCATED)
        found = locate(
            self.model,
            self.processor,
            asked,
            branch,
            p.batch_size,
            p.device,
            kind=kind,
            top_k=top_k,
            completeness=False,
            **own,
        )
        self.paths[branch] = select(found, top_k=top_k, aggregate=p.aggregate)

    def learn(self, branch: str) -> None:
        """Learns gates, as notebook 14 does, half of the questions to be lost and half to be kept."""
        p, asked = self.params, self.of("text" if branch == "text" else "image_text", LOCATED)
        top_k = p.trial_text_top_k if branch == "text" else p.trial_vision_top_k
        sizes = [min(top_k, ffn.n_neurons) for ffn in ffns(self.model, branch)]
        how = {"steps": GATE_STEPS, "batch_size": p.batch_size, "seed": p.seed, "device": p.device}
        learn_path(self.model, self.processor, asked[::2], asked[1::2], branch, sizes, **how)

    def edit(self) -> None:
        """Trains the paths for the parameters' number of steps, as notebook 04 does."""
        asked = [*self.of(MODALITIES[0], LOCATED), *self.of(MODALITIES[1], LOCATED)]
        batches = trials.edit_batches(self.processor, self.params, asked, asked, [])
        edit(
            self.model, list(self.paths.values()), *batches, trials.edit_config(self.params), self.params.seed
        )

    def answer(self, modality: str) -> None:
        """Generates answers."""
        p = self.params
        asked = self.of(modality, ANSWERED)
        generate(self.model, self.processor, asked, p.eval_batch_size, p.max_new_tokens)


def planned(
    params: BaseModel, name: str, config: PretrainedConfig, batches: Sequence[Sequence[Batch]]
) -> dict[str, float]:
    """The planner's peak by step, and by what is located, GiB, for text and image questions as large as these batches'."""
    shape = read_shape(name, config)
    work = replace(read_workload(BENCHMARK, 5, shape), questions=tuple(map(question_of, batches)))
    peaks = {step.name: step.peak for step in plan(params, shape, work, GPUS[-1:])}
    return {name: peak / 2**30 for name, peak in (peaks | locating_peaks(params, shape, work)).items()}


def planned_full_size(name: str, config: PretrainedConfig, processor: object) -> dict[str, float]:
    """What `planned` gives for `full_size`; needs no GPU and no weights."""
    params = settings(name, "cuda")
    one = FullSize(None, processor, params)
    batches = [[encode(processor, one.of(modality, LOCATED))] for modality in MODALITIES]
    return planned(params, name, config, batches)


def settings(name: str, device: str) -> BaseModel:
    """The parameters that a full-size model is measured with."""
    given = {
        "device": device,
        "edit_steps": 2,
        "neighbour_batch": 0,
        "benchmark_dir": BENCHMARK,
        "n_locate_forget": LOCATED,
    }
    return read_parameters([project_root() / "params" / f"{name}_mllmu.yaml"], given)


def full_size(name: str, device: str) -> Iterator[tuple]:
    """Rows of (step, seconds, GiB, planned GiB on a GPU of 80 GB) of one published model."""
    params = settings(name, device)
    config = project_root() / MODELS / f"{name}-instruct.json"
    made, *took = measured(lambda: random_model(config, under_root(LIKE), device, params.dtype), device)
    one = FullSize(*made, params)
    yield ("random weights", *took, float("nan"))
    peaks = planned_full_size(name, one.model.config, one.processor)
    for pair in PAIRS:
        told = f"locating ({pair}), {LOCATED} questions"
        yield (told, *measured(lambda pair=pair: one.locate(pair), device)[1:], peaks[pair])
    for branch in BRANCHES:
        told = f"two steps of learning gates ({branch}), {LOCATED} questions"
        yield (told, *measured(lambda branch=branch: one.learn(branch), device)[1:], float("nan"))
    yield ("two edit steps", *measured(one.edit, device)[1:], peaks["editing"])
    for modality in MODALITIES:
        told = f"answering ({modality}), {ANSWERED} questions"
        yield (told, *measured(lambda m=modality: one.answer(m), device)[1:], peaks["evaluating"])


def pocket(device: str) -> Iterator[tuple]:
    """Rows as of `full_size`, one a notebook of the pocket run."""
    code = "import sys; from mipnb.cli import main; sys.exit(main())"
    options = ["run", "--name", "gpu_pocket", "--force", "-p", "device", device]
    subprocess.run([sys.executable, "-c", code, *options], check=True, cwd=project_root())
    for file in sorted((project_root() / "runs/gpu_pocket").glob(f"*/{USAGE}")):
        usage = read_json(file)
        yield (
            file.parent.name,
            usage["seconds"],
            usage.get("peak_gpu_memory_gb", float("nan")),
            float("nan"),
        )


def run(options: Namespace) -> int:
    """Measures, prints, and writes `gpu.csv`; rows of models that are not measured again stay."""
    path = under_root(options.out) / "gpu.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    on = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    for model in options.model or (POCKET, "qwen2.5-vl-3b"):
        rows = pocket(options.device) if model == POCKET else full_size(model, options.device)
        found = pd.DataFrame(rows, columns=["step", "seconds", "gpu_gib", "planned_gib"])
        found.insert(0, "model", model)
        found.insert(0, "device", on)
        with atomic_path(path) as temporary:
            _beside(path, found).to_csv(temporary, index=False, float_format="%.4g")
    print(f"{pd.read_csv(path).to_string(index=False)}\nwrote {path}")
    return 0


def _beside(path: Path, found: pd.DataFrame) -> pd.DataFrame:
    """The rows of a file that are of other models, and those found."""
    if not path.exists():
        return found
    before = pd.read_csv(path)
    return pd.concat([before[~before.model.isin(found.model)], found], ignore_index=True)
