"""Locating, editing and evaluating take the model's memory and what activations need: never a second copy."""

import copy
from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from tiny_families import RECIPES, questions, tiny
from torch.profiler import ProfilerActivity, profile

from mipnb.batches import encode
from mipnb.editing import edit, prune
from mipnb.generation import generate
from mipnb.locating import locate
from mipnb.models import fingerprint
from mipnb.partial import weights_digest
from mipnb.paths import NeuronPath
from mipnb.rmisu import EditConfig
from mipnb.trials import bit_check

WIDTH, HIDDEN, LAYERS = 2048, 768, 6
BIG = {
    "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_attention_heads": 96,
    "num_key_value_heads": 48,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model_and_processor(request):
    """About 40 million weights in wide layers: a hundred megabytes, beside which activations are small."""
    with pytest.MonkeyPatch.context() as patch:
        words, ids, text, vision, rest = RECIPES["qwen2_5_vl"]
        patch.setitem(RECIPES, "qwen2_5_vl", (words, ids, text, vision | {"out_hidden_size": HIDDEN}, rest))
        model, processor = tiny("qwen2_5_vl", **BIG)
    return model.to(getattr(torch, request.param)), processor


def _size(model) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _growth(work: Callable[[], object]) -> int:
    """The most bytes that torch holds at a time while `work` is at it, beyond those that it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        work()
    found = profiled.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in found if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes), default=0)


def _paths(model):
    mark = fingerprint(model)
    return [
        NeuronPath("text", ((1, 4),) * LAYERS, WIDTH, mark),
        NeuronPath("vision", ((3,), (0,), (9,)), 40, mark),
    ]


def test_a_copy_would_be_seen(model_and_processor):
    model, _ = model_and_processor
    size = _size(model)
    assert size > 60e6
    assert _growth(lambda: copy.deepcopy(model)) > 0.9 * size
    assert _growth(lambda: [tensor.clone() for tensor in model.state_dict().values()]) > 0.9 * size
    assert _growth(lambda: [tensor.float() + 0 for tensor in model.parameters()]) > 0.9 * size


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_locating_takes_no_copy(model_and_processor, branch):
    model, processor = model_and_processor
    asked = questions(1, 0)
    grown = _growth(lambda: locate(model, processor, asked, branch, n_steps=1, top_k=3, search="one_pass"))
    assert grown < 0.5 * _size(model)


def test_editing_takes_no_copy(model_and_processor):
    model, processor = model_and_processor
    batches = [encode(processor, questions(0, 1)), encode(processor, questions(1, 0))]
    config = EditConfig(n_steps=2, layer_index=1)
    made = []
    grown = _growth(lambda: made.append(edit(model, _paths(model), batches, batches, config)))
    assert grown < 0.7 * _size(model), (
        "processors with bfloat16 keep each product's weight rounded, half its size"
    )
    assert len(made[0][1]) == 2


def test_checking_naming_and_evaluating_take_no_copy(model_and_processor):
    model, processor = model_and_processor
    pruned = prune(model, _paths(model))

    def evaluate():
        with pruned.applied(model):
            return generate(model, processor, questions(2, 2), 2, 3)

    for work in (evaluate, lambda: weights_digest(model), lambda: bit_check(model, pruned, at_once=2**24)):
        assert _growth(work) < 0.5 * _size(model)
    assert bit_check(model, pruned, at_once=2**24).equals(bit_check(model, pruned))
