"""Records and shapes at full size: every published checkpoint, on the meta device, no weight loaded."""

import json

import pytest
import torch
from published_models import PUBLISHED, Published
from transformers import AutoConfig, AutoModelForImageTextToText

from mipnb.families import family, image_tokens
from mipnb.lora import lora_targets
from mipnb.networks import ffns, text_layers, vision_tower
from mipnb.sources import ffn_sizes


@pytest.fixture(scope="module", params=PUBLISHED, ids=lambda item: item.name)
def published(request):
    item: Published = request.param
    config = AutoConfig.for_model(item.family, text_config=item.text, vision_config=item.vision, **item.rest)
    with torch.device("meta"):
        return item, AutoModelForImageTextToText.from_config(config)


def test_every_weight_is_accounted_for(published):
    item, model = published
    if item.parameters is not None:
        assert sum(parameter.numel() for parameter in model.parameters()) == item.parameters


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_paths_have_the_published_layers_and_neurons(published, branch):
    item, model = published
    found = ffns(model, branch)
    assert (len(found), {ffn.n_neurons for ffn in found}) == (item.paths[branch][0], {item.paths[branch][1]})
    hidden = item.text["hidden_size"] if branch == "text" else model.config.vision_config.hidden_size
    hidden = item.vision.get("embed_dim", hidden) if branch == "vision" else hidden
    for ffn in found:
        assert tuple(ffn.output.weight.shape) == (hidden, ffn.n_neurons)
        assert {tuple(linear.weight.shape) for linear in ffn.inputs} == {(ffn.n_neurons, hidden)}


def test_gates_and_biases_are_the_families_own(published):
    item, model = published
    for branch in ("text", "vision"):
        gated = branch == "text" or item.family == "qwen2_5_vl"
        for ffn in ffns(model, branch):
            assert ffn.gated == gated
            biased = {linear.bias is not None for linear in (*ffn.inputs, ffn.output)}
            assert biased == {branch == "vision"}


def test_the_vision_path_ends_where_the_features_leave_the_tower(published):
    item, model = published
    blocks = {name.split(".mlp")[0] for name, _ in vision_tower(model).named_modules() if ".mlp" in name}
    blocks = {name for name in blocks if name.rpartition(".")[2].isdigit()}
    assert len(blocks) == (item.blocks or item.paths["vision"][0])
    last = ffns(model, "vision")[-1].name.rpartition(".")[2]
    assert int(last) == item.paths["vision"][0] - 1


def test_lora_updates_the_language_layers_linear_modules_alone(published):
    _, model = published
    names = lora_targets(model)
    assert len(names) == 7 * len(text_layers(model))  # q, k, v, o; gate, up, down
    assert all(name.startswith("model.language_model.layers.") for name in names)


def test_sizes_are_read_off_a_folder_that_holds_no_weights(tmp_path):
    item = PUBLISHED[0]
    config = AutoConfig.for_model(item.family, text_config=item.text, vision_config=item.vision, **item.rest)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    assert ffn_sizes(tmp_path) == {"text": (36, 11008), "vision": (32, 3420)}


@pytest.mark.parametrize(
    ("name", "patches", "tokens"),
    [
        ("Qwen2.5-VL-3B", 16 * 16, 64),  # 224 x 224 pixels: 16 x 16 patches, 2 x 2 to a token
        ("Qwen3-VL-4B", 14 * 14, 49),
        ("LLaVA-1.5-7B", None, 576),
        ("Gemma-3-4B", None, 256),
    ],
)
def test_a_picture_takes_the_families_number_of_tokens(name, patches, tokens):
    item = next(item for item in PUBLISHED if item.name == name)
    config = AutoConfig.for_model(item.family, text_config=item.text, vision_config=item.vision, **item.rest)
    assert image_tokens(config, patches) == tokens
    if family(item.family).packed:
        with pytest.raises(ValueError, match="give patches"):
            image_tokens(config)
