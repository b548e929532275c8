"""Where FFNs are, what a model is called, and whether its files are whole."""

import json
import shutil

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from mipnb.artefacts import project_root
from mipnb.models import (
    ffn_sizes,
    ffns,
    fingerprint,
    load_model,
    load_processor,
    text_layers,
    verify_checksums,
)

VANILLA = project_root() / "data" / "pocket" / "vanilla"


@pytest.fixture(scope="module")
def model():
    return load_model(VANILLA)


def test_sizes_are_known_without_loading_weights(model):
    sizes = ffn_sizes(VANILLA)
    for branch in ("text", "vision"):
        found = ffns(model, branch)
        assert sizes[branch] == (len(found), found[0].n_neurons)
        assert all(ffn.gated for ffn in found)


def test_names_lead_to_the_modules(model):
    for branch in ("text", "vision"):
        for ffn in ffns(model, branch):
            assert model.get_submodule(ffn.output_name) is ffn.output
            assert [model.get_submodule(name) for name in ffn.input_names] == list(ffn.inputs)


def test_a_wrong_count_is_refused(model, monkeypatch):
    monkeypatch.setattr(model.config.text_config, "num_hidden_layers", 9)
    with pytest.raises(ValueError, match="holds 4 layers, the configuration says 9"):
        text_layers(model)


def test_an_unknown_branch_and_family_are_refused(model, monkeypatch):
    with pytest.raises(ValueError, match="branch 'audio'"):
        ffns(model, "audio")
    monkeypatch.setattr(model.config, "model_type", "other")
    with pytest.raises(ValueError, match=r"'other' has no family record; known: .*qwen2_5_vl"):
        ffns(model, "text")


def test_a_fingerprint_names_the_weights_not_their_dtype(model):
    assert fingerprint(load_model(VANILLA, "bfloat16")) == fingerprint(model)
    assert fingerprint(load_model(VANILLA.parent / "base")) != fingerprint(model)


def test_loaded_models_take_no_gradients(model):
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_plain_transformers_loads_the_shipped_folder(model):
    plain = AutoModelForImageTextToText.from_pretrained(VANILLA, dtype=torch.float32)
    assert type(plain).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert fingerprint(plain) == fingerprint(model)


def test_the_processor_makes_the_image_processors_tensors_and_reloads(tmp_path):
    processor = load_processor(VANILLA)
    picture = Image.linear_gradient("L").convert("RGB").resize((84, 84))
    text = "<|vision_start|><|image_pad|><|vision_end|>Who?"
    ours = processor(text=[text], images=[picture], return_tensors="pt")
    plain = AutoImageProcessor.from_pretrained(VANILLA)([picture], return_tensors="pt")
    assert torch.equal(ours["pixel_values"], plain["pixel_values"])
    assert (ours["input_ids"] == processor.image_token_id).sum() == 9
    processor.save_pretrained(tmp_path)
    shutil.copy(VANILLA / "config.json", tmp_path)
    again = load_processor(tmp_path)(text=[text], images=[picture], return_tensors="pt")
    assert torch.equal(again["input_ids"], ours["input_ids"])


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_a_damaged_file_is_named(tmp_path, damage):
    folder = shutil.copytree(VANILLA, tmp_path / "model")
    verify_checksums(folder)
    if damage == "change":
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    else:
        (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is damaged.*mipnb run -p retrain"):
        verify_checksums(folder)


def test_shipped_models_are_small_and_bfloat16():
    folders = [VANILLA, VANILLA.parent / "base"]
    files = [file for folder in folders for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 25e6
    stored = AutoModelForImageTextToText.from_pretrained(VANILLA, dtype="auto")
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.bfloat16}
    assert all(isinstance(ffn.output, nn.Linear) for ffn in ffns(stored, "vision"))
