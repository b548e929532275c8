"""Full-size measurements, on a model of the same form that is small."""

import json

import pandas as pd
import pytest
import torch
from transformers import AutoConfig

from mipnb import bench_gpu
from mipnb.artefacts import project_root, under_root
from mipnb.bench_gpu import LIKE, enlarging, full_size, measured, planned_full_size, random_model
from mipnb.readme_blocks import gpu_table
from mipnb.shapes import MODELS


@pytest.fixture
def small(tmp_path):
    """The published configuration of Qwen2.5-VL-3B with fewer and narrower layers."""
    config = json.loads((project_root() / MODELS / "qwen2.5-vl-3b-instruct.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    text |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4}
    text["rope_parameters"]["mrope_section"] = [2, 3, 3]
    vision |= {"depth": 2, "hidden_size": 64, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 64}
    vision["fullatt_block_indexes"] = [1]
    file = tmp_path / "small.json"
    file.write_text(json.dumps(config))
    return file


def test_a_random_model_has_the_configurations_shape_and_the_others_words(small):
    model, processor = random_model(small, under_root(LIKE), "cpu", "bfloat16")
    assert model.get_input_embeddings().weight.shape == (151936, 64)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")


def test_families_are_not_mixed(tmp_path):
    with pytest.raises(ValueError, match=r"is a llava, vanilla a qwen2_5_vl: expected one family"):
        random_model(project_root() / MODELS / "llava-1.5-7b-hf.json", under_root(LIKE), "cpu", "float32")


def test_every_step_is_measured_beside_its_plan(small, monkeypatch):
    made = bench_gpu.random_model
    monkeypatch.setattr(bench_gpu, "random_model", lambda config, *rest: made(small, *rest))
    monkeypatch.setattr(bench_gpu, "LOCATED", 2)
    monkeypatch.setattr(bench_gpu, "ANSWERED", 4)
    steps = pd.DataFrame(
        full_size("qwen2.5-vl-3b", "cpu"), columns=["step", "seconds", "gpu_gib", "planned_gib"]
    )
    words = steps.step.str.split(r"[ (]").str[0].tolist()
    assert words == ["random", *["locating"] * 3, *["two"] * 3, "answering", "answering"]
    assert (steps.seconds > 0).all()
    planned = ~steps.step.str.contains("random weights|gates")
    assert steps.planned_gib[planned].gt(0).all(), "what is planned does not depend on the device"


@pytest.fixture(scope="module")
def published():
    """Published measurements of the full-size model by step, and what the planner says of it now."""
    rows = pd.read_csv(under_root("data/results/gpu.csv"))
    rows = rows[rows.model == "qwen2.5-vl-3b"].dropna().set_index("step")
    config = AutoConfig.from_pretrained(project_root() / MODELS / "qwen2.5-vl-3b-instruct.json")
    return rows, planned_full_size("qwen2.5-vl-3b", config, enlarging(under_root(LIKE)))


STEPS = {
    "locating (text), 8 questions": "text",
    "locating (text_pictured), 8 questions": "text_pictured",
    "locating (vision), 8 questions": "vision",
    "two edit steps": "editing",
    "answering (text), 128 questions": "evaluating",
    "answering (image_text), 128 questions": "evaluating",
}


def test_published_plans_are_the_planners(published):
    rows, peaks = published
    assert rows.planned_gib.to_dict() == pytest.approx(
        {step: peaks[STEPS[step]] for step in rows.index}, rel=1e-3
    )
    assert set(rows.index) == set(STEPS)


def test_a_gpus_peaks_are_planned_within_15_percent(published):
    rows, _ = published
    assert (rows.planned_gib / rows.gpu_gib).between(0.85, 1.15).all()


def test_work_is_done_once_and_its_result_returned():
    made = []
    found, seconds, peak = measured(lambda: made.append(1) or 7, "cpu")
    assert (found, made, peak != peak) == (7, [1], True)
    assert seconds >= 0


def test_a_table_says_what_was_measured_on_what():
    row = {
        "device": "X9",
        "model": "m",
        "step": "two edit steps",
        "seconds": 13.4,
        "gpu_gib": 9.75,
        "planned_gib": None,
    }
    lines = gpu_table(pd.DataFrame([row, row | {"device": "NVIDIA Y8", "planned_gib": 9.2}])).splitlines()
    assert lines[2:] == [
        "| m | X9 | two edit steps | 13 | 9.8 |  |",
        "| m | Y8 | two edit steps | 13 | 9.8 | 9.2 |",
    ]
