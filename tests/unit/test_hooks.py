"""Hooks: gates act at every position of their sample, and nothing is left behind."""

import pytest
import torch
from torch import nn
from toys import Chain, as_ffn, chain_batch, questions, tiny_vl

from mipnb.batches import patch_owner
from mipnb.hooks import captured, gated, undisturbed, zeroed
from mipnb.models import ffns


def n_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def fail() -> None:
    raise RuntimeError("in the middle")


def test_a_gate_scales_its_neuron_at_every_token_of_its_sample():
    linear = nn.Linear(3, 3, bias=False)
    nn.init.eye_(linear.weight)
    activation = torch.arange(1.0, 13).reshape(2, 2, 3)
    gates = torch.tensor([[1.0, 0.5, 0.0], [2.0, 1.0, 1.0]])
    with gated([as_ffn(linear)], [gates]) as seen:
        out = linear(activation)
    expected = torch.tensor([[[1, 1, 0], [4, 2.5, 0]], [[14, 8, 9], [20, 11, 12]]])
    assert torch.equal(out, expected)
    assert torch.equal(seen[0], expected)


def test_packed_patches_take_the_gate_of_their_own_picture():
    linear = nn.Linear(2, 2, bias=False)
    nn.init.eye_(linear.weight)
    owner = patch_owner(torch.tensor([[1, 1, 1], [1, 1, 3]]))
    with gated([as_ffn(linear)], [torch.tensor([[0.0, 1.0], [2.0, 3.0]])], owner):
        out = linear(torch.ones(4, 2))
    assert out.tolist() == [[0, 1], [2, 3], [2, 3], [2, 3]]


def test_ones_change_nothing_and_captured_sees_what_gated_saw():
    model, batch = tiny_vl(), questions([(0, 0)] * 2, [5, 7])
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    networks = ffns(model, "text")
    plain = model(**inputs).logits
    with captured(networks) as before:
        model(**inputs)
    with gated(networks, [torch.ones(2, network.n_neurons) for network in networks]) as after:
        assert torch.equal(model(**inputs).logits, plain)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_zeroed_silences_the_chosen_neurons_only():
    model, batch = Chain(), chain_batch()
    with zeroed(model.ffns, [[1, 3], [], [0]]), captured(model.ffns) as seen:
        model(batch["hidden"])
    silent = [(activation == 0).all(0).all(0).nonzero()[:, 0].tolist() for activation in seen]
    assert silent == [[1, 3], [], [0]]


def test_zeroed_without_neurons_silences_all_of_them():
    model, batch = Chain(), chain_batch()
    with zeroed(model.ffns):
        logits = model(batch["hidden"]).logits
    direct = (batch["hidden"].mean(1) @ model.read).sigmoid()
    assert torch.allclose(logits[:, 0, 0].exp(), direct)


@pytest.mark.parametrize("neurons", [[[5], [], []], [[-1], [], []], [[0], [1]]])
def test_zeroed_refuses_neurons_that_do_not_exist(neurons):
    model = Chain()
    with pytest.raises(ValueError, match="neurons"), zeroed(model.ffns, neurons):
        pass
    assert n_hooks(model) == 0


@pytest.mark.parametrize(
    "context",
    [
        lambda model: gated(model.ffns, [torch.ones(3, 5)] * 3),
        lambda model: captured(model.ffns),
        lambda model: zeroed(model.ffns),
    ],
)
def test_hooks_come_off_after_an_error(context):
    model = Chain()
    with context(model):
        assert n_hooks(model) == 3
    with pytest.raises(RuntimeError, match="in the middle"), context(model):
        fail()
    assert n_hooks(model) == 0


def test_gates_that_do_not_fit_are_refused_by_name():
    model, batch = Chain(), chain_batch()
    refused = pytest.raises(ValueError, match=r"toy: gates \(2, 5\) do not fit activations \(3, 4, 5\)")
    with refused, gated(model.ffns, [torch.ones(2, 5)]):
        model(batch["hidden"])
    refused = pytest.raises(ValueError, match="packed patches need their owner")
    with refused, gated(model.ffns, [torch.ones(3, 5)]):
        model.outs[0](torch.ones(7, 5))
    assert n_hooks(model) == 0


def test_bfloat16_activations_stay_bfloat16_under_float32_gates():
    linear = nn.Linear(2, 2).bfloat16()
    with gated([as_ffn(linear)], [torch.full((1, 2), 0.3)]) as seen:
        assert linear(torch.ones(1, 3, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert seen[0].dtype == torch.bfloat16


def test_undisturbed_puts_flags_back_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="in the middle"), undisturbed(model):
        fail()
    assert before == (
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )
