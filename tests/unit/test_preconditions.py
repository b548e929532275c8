"""Bad input to locating: told before or after the passes, by name."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import Chain, HandMade, as_ffn, chain_batch, hand_batch, questions, tiny_vl, toy_scores

from mipnb.attribution import attribute
from mipnb.models import ffns
from mipnb.preconditions import check_device
from mipnb.scores import Scores

TEXT_ONLY, PICTURES, LENGTHS = [(0, 0)] * 3, [(4, 4), (2, 6), (8, 4)], [7, 9, 5]


def test_an_image_question_without_its_image_is_refused():
    batch = questions(PICTURES, LENGTHS)
    del batch["pixel_values"], batch["image_grid_thw"]
    with pytest.raises(
        ValueError, match=r"samples \[0, 1, 2\] of the batch are image questions without an image"
    ):
        attribute(tiny_vl(), batch, "text")


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_layer_without_neurons_is_refused():
    layer = as_ffn(nn.Linear(0, 4), name="model.layers.3")
    with pytest.raises(ValueError, match=r"model\.layers\.3 has no neurons"):
        attribute(Chain(), chain_batch(), "text", ffns=[layer], fingerprint="")
    with pytest.raises(ValueError, match=r"found \[\] in 0 networks"):
        attribute(Chain(), chain_batch(), "text", ffns=[], fingerprint="")


class Linear4bit(nn.Linear):
    """As bitsandbytes names it."""


class Packed(nn.Linear):
    """A linear layer whose weights are bytes."""

    def __init__(self):
        super().__init__(5, 4)
        self.weight = nn.Parameter(torch.zeros(10, 1, dtype=torch.uint8), requires_grad=False)


class Renamed(nn.Module):
    """A layer whose weights are packed under another name."""

    def __init__(self):
        super().__init__()
        self.in_features, self.out_features = 5, 4
        self.qweight = nn.Parameter(torch.zeros(5, 4, dtype=torch.int32), requires_grad=False)


@pytest.mark.parametrize("linear", [lambda: Linear4bit(5, 4), Packed, Renamed])
def test_quantised_networks_are_refused_by_name(linear):
    model = Chain()
    layer = as_ffn(linear(), name="model.layers.0.mlp.down_proj")
    with pytest.raises(
        ValueError,
        match=r"model\.layers\.0.*is a (Linear4bit|Packed|Renamed) with .*load the model in bfloat16",
    ):
        attribute(model, chain_batch(), "text", ffns=[*model.ffns, layer], fingerprint="")
    gate = as_ffn(nn.Linear(5, 4), (linear(),))
    with pytest.raises(ValueError, match="a quantised network's neurons cannot be edited"):
        attribute(model, chain_batch(), "text", ffns=[gate], fingerprint="")


def wrapped(tensor: torch.Tensor) -> nn.Parameter:
    """A weight in a tensor of its own kind, which calls itself float32 (torchao, quanto)."""
    return nn.Parameter(tensor.as_subclass(type("IntxTensor", (torch.Tensor,), {})), requires_grad=False)


class Params4bit(nn.Parameter):
    """As bitsandbytes names it: bytes under a dtype of one's choice (bnb_4bit_quant_storage)."""


ELSEWHERE = {
    "stored as float32": Params4bit(torch.zeros(3, 3), requires_grad=False),
    "bytes": nn.Parameter(torch.zeros(3, 1, dtype=torch.uint8), requires_grad=False),
    "8 bits": nn.Parameter(torch.zeros(3, 3).to(torch.float8_e4m3fn), requires_grad=False),
    "own kind": wrapped(torch.zeros(3, 3)),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("branch", ["text", "vision"])
def test_a_quantised_layer_anywhere_is_refused(kind, branch):
    model, batch = tiny_vl(), questions(PICTURES, LENGTHS)
    model.model.language_model.layers[1].self_attn.q_proj.weight = ELSEWHERE[kind]
    with pytest.raises(
        ValueError, match=r"layers\.1\.self_attn\.q_proj is a Linear with .*quantised network's"
    ):
        attribute(model, batch, branch, fingerprint="")


def test_a_model_that_says_it_is_quantised_is_refused():
    model = Chain()
    model.is_quantized = True
    with pytest.raises(ValueError, match="this Chain is quantised: a quantised network's neurons"):
        toy_scores(model, chain_batch())


def test_samples_without_answer_tokens_are_refused_by_number():
    batch = questions(TEXT_ONLY, LENGTHS)
    batch["labels"][1] = -100
    with pytest.raises(ValueError, match=r"samples \[1\] of the batch have no answer token"):
        attribute(tiny_vl(), batch, "text")
    del batch["labels"]
    with pytest.raises(ValueError, match="the batch has no labels"):
        attribute(tiny_vl(), batch, "text")


def test_autocast_around_it_changes_no_score():
    model, batch = tiny_vl(), questions(TEXT_ONLY, LENGTHS)
    plain = attribute(model, batch, "text", top_k=2).values
    with torch.autocast("cpu", torch.bfloat16):
        inside = attribute(model, batch, "text", top_k=2).values
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(inside, plain)


def test_a_model_that_cuts_the_graph_is_refused():
    model = HandMade(2, 1, lambda outs: (0.2 + outs[0].sum((1, 2)) / 9).detach())
    with pytest.raises(ValueError, match="no gradient reaches any of the 1 layers of the text branch"):
        toy_scores(model, hand_batch([[[0.1, 0.2]] * 2]))


def test_a_frozen_tower_that_passes_no_gradient_on_is_refused_and_the_text_branch_is_not():
    model, batch = tiny_vl(), questions(PICTURES, LENGTHS)
    tower = model.model.visual
    tower.forward = torch.no_grad()(tower.forward)
    with pytest.raises(ValueError, match="no gradient reaches any of the 3 layers of the vision branch"):
        attribute(model, batch, "vision")
    assert (attribute(model, batch, "text").values != 0).any()


def test_samples_whose_gradients_are_all_zero_are_warned_of():
    flat = HandMade(2, 1, lambda outs: (0.1 + outs[0].sum((1, 2))).clamp(max=0.9))
    batch = hand_batch([[[0.1, 0.2]] * 2, [[2.0, 2.0]] * 2])
    with pytest.warns(UserWarning, match=r"every gradient of samples \['sure'\] is 0"):
        values = toy_scores(flat, batch, names=["unsure", "sure"], n_steps=1).values
    assert (values[0] != 0).all()


@pytest.mark.parametrize("name", ["n_steps", "top_k", "max_rows"])
@pytest.mark.parametrize("value", [0, 2.0, "2"])
def test_numbers_are_whole_and_at_least_1(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; expected a whole number of at least 1"):
        attribute(tiny_vl(), questions(TEXT_ONLY, LENGTHS), "text", **{name: value})


def test_numpys_numbers_are_numbers(tmp_path):
    scores = attribute(
        tiny_vl(), questions(TEXT_ONLY, LENGTHS), "text", top_k=np.int64(2), n_steps=np.int32(3)
    )
    assert Scores.load(scores.save(tmp_path / "scores.safetensors")).parameters == scores.parameters


def test_labels_are_int64_and_there_are_some():
    batch = questions(TEXT_ONLY, LENGTHS)
    with pytest.raises(ValueError, match=r"labels are torch\.int32 \(3, \d+\); expected int64"):
        attribute(tiny_vl(), batch | {"labels": batch["labels"].int()}, "text")
    with pytest.raises(ValueError, match=r"expected int64 \(samples, tokens\)"):
        attribute(tiny_vl(), {key: tensor[:0] for key, tensor in batch.items()}, "text")


def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="device = cuda:99: torch finds"):
        check_device("cuda:99")
    check_device("cpu")


@pytest.mark.parametrize("search", ["greedy", "one_pass", "gradient"])
def test_gradients_that_are_no_numbers_name_sample_and_layer(search):
    model, batch = tiny_vl(), questions(TEXT_ONLY, LENGTHS)
    layer = ffns(model, "text")[1].output
    hook = layer.register_full_backward_hook(lambda module, into, out: (into[0] * float("nan"),))
    with pytest.raises(ValueError, match="scores of sample 'a' are not finite at text layer"):
        attribute(model, batch, "text", names=["a", "b", "c"], search=search)
    hook.remove()
