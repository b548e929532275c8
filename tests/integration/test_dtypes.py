"""Scores and paths do not depend on the number type that weights are kept in."""

import pytest
import torch
from tiny_families import RECIPES, questions, tiny

from mipnb.agreement import changed
from mipnb.attribution import attribute
from mipnb.batches import encode
from mipnb.benchmarks import draw_questions, forget_ids, load_training, retain_ids
from mipnb.dtypes import compare_dtypes
from mipnb.models import ffns, load_model
from mipnb.paths import NeuronPath
from mipnb.precision import _Float32, float32_arithmetic

ROOT, MODEL = "data/pocket", "data/pocket/vanilla"


@pytest.fixture(scope="module", params=RECIPES)
def pair(request, tmp_path_factory):
    """One model's bfloat16 weights, loaded in float32 and as they are."""
    model, processor = tiny(request.param)
    folder = tmp_path_factory.mktemp("model")
    model.to(torch.bfloat16).save_pretrained(folder)
    models = [load_model(folder, dtype) for dtype in ("float32", "bfloat16")]
    return *models, processor


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_scores_of_bfloat16_weights_are_those_of_the_same_weights_in_float32(pair, branch):
    full, short, processor = pair
    batch = encode(processor, questions(2, 0))
    found = [attribute(model, batch, branch, kind="igi", n_steps=2, top_k=3) for model in (full, short)]
    scale = found[0].values.abs().max()
    assert (found[0].values - found[1].values).abs().max() < 2e-3 * scale, (
        "rounding activations gives 1e-2 and more"
    )
    assert {parameter.dtype for parameter in short.parameters()} == {torch.bfloat16}


def test_the_model_is_left_bit_for_bit_also_after_an_error(pair):
    _, short, processor = pair
    before = {name: tensor.clone() for name, tensor in short.state_dict().items()}
    batch = {k: v for k, v in encode(processor, questions(1, 0)).items() if k != "labels"}
    usual = short(**batch).logits

    def fail():
        with float32_arithmetic(short):
            assert short(**batch).logits.dtype == torch.float32
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert short(**batch).logits.dtype == torch.bfloat16
    assert torch.equal(short(**batch).logits, usual)
    assert all(torch.equal(tensor, before[name]) for name, tensor in short.state_dict().items())


def test_large_layers_are_made_float32_in_portions(monkeypatch):
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(6, 40).bfloat16(), torch.randn(3, 6, requires_grad=True)
    layer.requires_grad_(False)
    exact = torch.nn.Linear(6, 40).requires_grad_(False)
    exact.load_state_dict(layer.state_dict())
    monkeypatch.setattr("mipnb.precision._AT_ONCE", 50)
    with _Float32():
        found = layer(inputs)
    torch.testing.assert_close(found, exact(inputs))
    slope = torch.randn(3, 40)
    gradients = [torch.autograd.grad((out * slope).sum(), inputs)[0] for out in (found, exact(inputs))]
    torch.testing.assert_close(*gradients)


def test_a_float32_model_is_computed_as_ever(pair):
    full, _, processor = pair
    batch = {k: v for k, v in encode(processor, questions(1, 0)).items() if k != "labels"}
    usual = full(**batch).logits
    with float32_arithmetic(full):
        assert torch.equal(full(**batch).logits, usual)


def test_what_the_backward_pass_keeps_is_the_weight_as_it_is(pair):
    _, short, processor = pair
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    batch = {k: v for k, v in encode(processor, questions(1, 0)).items() if k != "labels"}
    weight = ffns(short, "text")[1].output.weight
    with float32_arithmetic(short), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embeddings = short.get_input_embeddings()
        handle = embeddings.register_forward_hook(lambda module, args, out: out.detach().requires_grad_(True))
        try:
            short(**batch)
        finally:
            handle.remove()
    assert any(tensor.data_ptr() == weight.data_ptr() and tensor.dtype == torch.bfloat16 for tensor in kept)
    assert not any(tensor.shape == weight.shape and tensor.dtype == torch.float32 for tensor in kept)


def test_changed_counts_the_neurons_that_are_lost():
    one, other = (NeuronPath("text", layers, 9, "m") for layers in (((1, 2, 3), (4,)), ((2, 3, 5), (4,))))
    assert changed(one, other) == pytest.approx(1 / 4)
    assert changed(one, one) == 0
    with pytest.raises(ValueError, match="fingerprint"):
        changed(one, NeuronPath("text", ((1,), (4,)), 9, "n"))


def test_at_most_two_percent_of_the_path_change_with_bfloat16_on_pocket():
    people = {"forget": forget_ids(ROOT, 5), "retain": retain_ids(ROOT, 5)}
    asked = {name: draw_questions(load_training(ROOT, ids=ids), 8, 42) for name, ids in people.items()}
    table = compare_dtypes(MODEL, asked, {"text": 48, "vision": 24}, n_steps=2, search="one_pass")
    assert table.branch.tolist() == ["text", "vision"]
    assert table.neurons.tolist() == [192, 72]
    assert (table.changed <= 0.02).all()
