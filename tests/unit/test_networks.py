"""Records are resolved on the model, and refused where they do not fit it, naming what was found."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny_qwen import tiny_model

from mipnb.families import FAMILIES, family_of
from mipnb.networks import _n_used, ffns, vision_tower

TOWER = FAMILIES["llava"].vision


@pytest.fixture
def model():
    return tiny_model()


def with_record(monkeypatch, **changed) -> None:
    """The record of Qwen2.5-VL's vision branch, changed."""
    record = FAMILIES["qwen2_5_vl"]
    monkeypatch.setitem(FAMILIES, "qwen2_5_vl", replace(record, vision=replace(record.vision, **changed)))


def test_a_list_of_layers_that_is_not_there(model, monkeypatch):
    with_record(monkeypatch, layers="model.vision_tower.layers")
    with pytest.raises(ValueError, match=r"no model\.vision_tower\.layers .*model\.visual\.blocks"):
        ffns(model, "vision")


def test_a_network_that_is_not_there(model, monkeypatch):
    with_record(monkeypatch, output="mlp.fc2")
    with pytest.raises(ValueError, match=r"blocks\.0 lacks .*'mlp\.fc2'.* are .*'mlp\.down_proj'"):
        ffns(model, "vision")


def test_a_wrong_number_of_neurons(model, monkeypatch):
    monkeypatch.setattr(model.config.vision_config, "intermediate_size", 21)
    with pytest.raises(
        ValueError, match=r"blocks\.0 has networks of \[20\] neurons, the configuration says 21"
    ):
        ffns(model, "vision")


def test_input_and_output_layers_of_different_width(model, monkeypatch):
    with_record(monkeypatch, inputs=("attn.qkv",), width="")
    with pytest.raises(ValueError, match=r"networks of \[20, 96\] neurons"):
        ffns(model, "vision")


def test_the_tower_holds_every_vision_parameter(model):
    inside = {id(parameter) for parameter in vision_tower(model).parameters()}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in inside) == name.startswith("model.visual.")


@pytest.mark.parametrize(
    ("taken", "layers"), [(-2, 23), (-1, 24), (24, 24), (1, 1), ([-2, -5], 23), ([3, 18], 18)]
)
def test_features_end_the_path_at_the_last_layer_that_makes_them(taken, layers):
    assert _n_used(SimpleNamespace(vision_feature_layer=taken), TOWER, 24) == layers


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        (0, "the features are the embeddings"),
        (-25, "the embeddings"),
        (25, "has 25 hidden states"),
        (-26, "has 25"),
    ],
)
def test_features_that_no_layer_makes(taken, words):
    with pytest.raises(ValueError, match=words):
        _n_used(SimpleNamespace(vision_feature_layer=taken), TOWER, 24)


def test_an_unknown_processor_is_named():
    with pytest.raises(
        ValueError, match=r"no family record for a SimpleNamespace; known processors: Gemma3Processor"
    ):
        family_of(SimpleNamespace())
