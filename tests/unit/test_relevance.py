"""Estimators on the unscaled model: values untouched, rules as stated, by hand on one gated network."""

import pytest
import torch
from test_hooks import n_hooks
from torch import nn
from torch.nn import functional
from toys import (
    ACTIVATION,
    SUMS,
    WEIGHT,
    HandMade,
    as_ffn,
    hand_batch,
    linear_head,
    questions,
    tiny_vl,
    toy_scores,
)

from mipnb.attribution import attribute
from mipnb.models import FFN, ffns
from mipnb.relevance import relevance_rules

CASES = [("text", [(0, 0)] * 3), ("vision", [(4, 4), (2, 6), (8, 4)])]


@pytest.mark.parametrize(("branch", "grids"), CASES)
@pytest.mark.parametrize("score", ["complete", "joint"])
def test_gradient_is_one_right_step_of_one_pass(branch, grids, score):
    model, batch = tiny_vl(), questions(grids, [7, 9, 5])
    found = attribute(model, batch, branch, search="gradient", score=score, n_steps=7, rule="gauss", top_k=2)
    step = attribute(model, batch, branch, search="one_pass", score=score, n_steps=1, rule="right", top_k=2)
    assert torch.equal(found.values, step.values)
    assert found.gap is None


@pytest.mark.parametrize("search", ["gradient", "relevance"])
def test_both_are_weight_times_activation_on_a_linear_net(search):
    values = toy_scores(HandMade(2, 1, linear_head), hand_batch(ACTIVATION), search=search).values
    assert torch.allclose(values[:, 0], SUMS * WEIGHT, atol=1e-6)


class Gated(nn.Module):
    """One gated network on a normed input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.act = nn.RMSNorm(3), nn.SiLU()
        self.gate, self.up, self.down = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)
        self.requires_grad_(False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        normed = self.norm(hidden)
        return self.down(self.act(self.gate(normed)) * self.up(normed))


def test_the_rules_by_hand_on_a_gated_network():
    net, hidden = Gated(), torch.randn(2, 3).requires_grad_()
    network = FFN("", (net.gate, net.up), net.down, ("gate", "up"), "down", net.act)
    plain = net(hidden)
    with relevance_rules(net, [network]):
        assert torch.allclose(net(hidden), plain)
        (found,) = torch.autograd.grad(net(hidden).sum(), hidden)
    with torch.no_grad():
        scale = net.norm(hidden) / hidden  # a norm is a constant factor
        gate, up = net.gate(hidden * scale), net.up(hidden * scale)
        out = net.down.weight.sum(0)  # of both outputs
        to_gate = out * up * 0.5 * functional.silu(gate) / gate  # half of the product, y / x for the slope
        to_up = out * functional.silu(gate) * 0.5
        expected = scale * (to_gate @ net.gate.weight + to_up @ net.up.weight)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert n_hooks(net) == 0


def test_attention_passes_gradients_through_values_only():
    parts = [torch.randn(1, 1, 3, 2).requires_grad_() for _ in range(3)]
    with relevance_rules(nn.Identity(), []):
        out = functional.scaled_dot_product_attention(*parts)
        eager = (parts[0] @ parts[1].transpose(-1, -2)).softmax(-1) @ parts[2]
    found = torch.autograd.grad(out.sum() + eager.sum(), parts, allow_unused=True)
    assert found[0] is None
    assert found[1] is None
    assert (found[2] != 0).any()


def test_an_activation_module_that_layers_share_is_changed_once():
    shared, linears = nn.ReLU(), [nn.Linear(2, 2) for _ in range(2)]
    networks = [FFN("", (linears[0],), as_ffn(nn.Linear(2, 2)).output, ("a",), "b", shared) for _ in range(2)]
    into = torch.tensor([-1.0, 2.0], requires_grad=True)
    with relevance_rules(nn.Identity(), networks):
        (found,) = torch.autograd.grad(shared(into).sum(), into)
    assert found.tolist() == [0, 1]


@pytest.mark.parametrize(("branch", "grids"), CASES)
def test_relevance_leaves_values_and_model_alone(branch, grids):
    model, batch = tiny_vl(), questions(grids, [7, 9, 5])
    found = attribute(model, batch, branch, search="relevance", top_k=2)
    plain = attribute(model, batch, branch, search="gradient", top_k=2)
    assert torch.allclose(found.f_full, plain.f_full, rtol=1e-3)
    assert not torch.allclose(found.values, plain.values, rtol=0.1)
    assert n_hooks(model) == 0
    assert torch.equal(attribute(model, batch, branch, search="gradient", top_k=2).values, plain.values)
    assert len(ffns(model, branch)) == found.values.shape[1]
