"""Scores on nets with closed-form answers: rules, Eq. 4 and Eq. 6, the product of sums, completeness."""

import itertools

import pytest
import torch
from torch import Tensor
from toys import (
    ACTIVATION,
    SUMS,
    WEIGHT,
    Chain,
    HandMade,
    chain_batch,
    decay_head,
    hand_batch,
    linear_head,
    product_head,
    square_head,
    toy_scores,
)

from mipnb.attribution import completeness_gap
from mipnb.rules import RULES, quadrature

# ---- rules


@pytest.mark.parametrize("n_steps", [1, 2, 4, 7])
def test_the_right_rule_ends_at_one_and_weighs_one_over_m(n_steps):
    alphas, weights = quadrature("right", n_steps)
    assert torch.allclose(alphas, torch.arange(1, n_steps + 1) / n_steps)
    assert alphas[-1] == 1
    assert torch.allclose(weights, torch.full((n_steps,), 1 / n_steps))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_steps", [1, 3, 8])
def test_rules_integrate_what_they_should(rule, n_steps):
    alphas, weights = (tensor.double() for tensor in quadrature(rule, n_steps))
    degree = {"right": 0, "midpoint": 1, "gauss": 2 * n_steps - 1}[rule]
    for power in range(degree + 1):
        assert (weights * alphas**power).sum() == pytest.approx(1 / (power + 1), abs=1e-6)
    assert (weights * alphas ** (degree + 1)).sum() != pytest.approx(1 / (degree + 2), abs=1e-9)


# ---- closed forms


@pytest.mark.parametrize(("rule", "n_steps"), [*itertools.product(RULES, [1, 4]), ("right", 50)])
@pytest.mark.parametrize("search", ["greedy", "one_pass", "exact", "tangent", "shortlist"])
def test_linear_net_scores_are_weight_times_activation_whatever_the_grid(rule, n_steps, search):
    scores = toy_scores(
        HandMade(2, 1, linear_head), hand_batch(ACTIVATION), rule=rule, n_steps=n_steps, search=search
    )
    assert torch.allclose(scores.values[:, 0], SUMS * WEIGHT, atol=1e-6)  # all tokens, not the first


def test_the_neuron_that_raises_the_answer_is_positive_and_the_one_that_lowers_it_negative():
    values = toy_scores(HandMade(2, 1, linear_head), hand_batch(ACTIVATION)).values
    assert (values[:, 0, 0] > 0).all()
    assert (values[:, 0, 1] < 0).all()


@pytest.mark.parametrize(("rule", "factor"), [("right", 5 / 4), ("midpoint", 1), ("gauss", 1)])
def test_quadratic_net_scores_and_gap(rule, factor):
    scores = toy_scores(HandMade(2, 1, square_head), hand_batch(ACTIVATION), rule=rule, n_steps=4)
    parts = SUMS * WEIGHT  # dF/dgate_i = 2 alpha parts_i sum(parts)
    assert torch.allclose(scores.values[:, 0], factor * parts * parts.sum(-1, keepdim=True), atol=1e-6)
    assert torch.allclose(scores.f_full, parts.sum(-1) ** 2 + 0.1)
    assert torch.allclose(scores.f_zero, torch.tensor(0.1))
    assert torch.allclose(scores.gap, torch.tensor(factor - 1.0), atol=1e-4)


@pytest.mark.parametrize("n_steps", [1, 2, 8, 32])
def test_the_gap_of_the_right_rule_shrinks_as_one_over_m(n_steps):
    gap = toy_scores(HandMade(2, 1, square_head), hand_batch(ACTIVATION), rule="right", n_steps=n_steps).gap
    assert torch.allclose(gap, torch.tensor(1 / n_steps), rtol=1e-2)


@pytest.mark.parametrize("answer_tokens", [1, 2])
def test_fisher_scores_are_squared_gradients_of_the_log_likelihood(answer_tokens):
    batch = hand_batch(ACTIVATION, answer_tokens=answer_tokens)
    values = toy_scores(HandMade(2, 1, decay_head), batch, kind="ifi", n_steps=3).values
    expected = (answer_tokens * SUMS * WEIGHT) ** 2  # G sums over answer tokens; its gradient is constant
    assert torch.allclose(values[:, 0], expected, atol=1e-6)


def test_fisher_scores_average_over_steps_and_are_not_standardised():
    values = toy_scores(
        HandMade(2, 1, square_head), hand_batch(ACTIVATION), kind="ifi", target="probability"
    ).values
    parts = SUMS * WEIGHT
    mean_square = (quadrature("right", 4)[0] ** 2).mean()
    expected = mean_square * (2 * parts * parts.sum(-1, keepdim=True)) ** 2
    assert torch.allclose(values[:, 0], expected, atol=1e-7)


@pytest.mark.parametrize(("kind", "target"), [("igi", "probability"), ("ifi", "log_likelihood")])
def test_the_default_target_follows_the_kind_and_the_default_kind_the_branch(kind, target):
    model, batch = HandMade(2, 1, decay_head), hand_batch(ACTIVATION)
    assert toy_scores(model, batch, kind=kind).parameters["target"] == target
    assert torch.equal(
        toy_scores(model, batch, kind=kind).values, toy_scores(model, batch, kind=kind, target=target).values
    )
    assert toy_scores(model, batch).parameters["kind"] == "igi"


def test_igi_can_differentiate_the_log_likelihood():
    scores = toy_scores(HandMade(2, 1, decay_head), hand_batch(ACTIVATION), target="log_likelihood")
    assert torch.allclose(scores.values[:, 0], -SUMS * WEIGHT, atol=1e-6)
    assert scores.gap.max() < 1e-5


# ---- joint: product of sums


@pytest.mark.parametrize("search", ["greedy", "one_pass", "exact", "tangent", "shortlist"])
@pytest.mark.parametrize("head", [linear_head, square_head])
def test_joint_is_complete_for_a_single_neuron(search, head):
    def one(outs: list[Tensor]) -> Tensor:
        return head([torch.cat([outs[0], torch.zeros_like(outs[0])], -1)])

    batch = hand_batch([[[a] for a, _ in tokens] for tokens in ACTIVATION])
    found = [
        toy_scores(HandMade(1, 1, one), batch, score=score, search=search, rule="right").values
        for score in ("joint", "complete")
    ]
    assert torch.allclose(*found, atol=1e-7)
    assert found[0].abs().min() > 1e-3


# two layers of three neurons over two tokens, one sample, F linear: D_{n,t} is the neuron's weight
LAYERS = ([[[0.1, 0.2, 0.0], [0.1, 0.0, 0.3]]], [[[0.2, 0.0, 0.1], [0.0, 0.1, 0.1]]])
LAYER_WEIGHTS = torch.tensor([[0.5, 0.4, -0.1], [0.2, -0.3, 0.6]])


def layered_head(outs: list[Tensor]) -> Tensor:
    return 0.4 + sum((out @ weight).sum(1) for out, weight in zip(outs, LAYER_WEIGHTS, strict=True))


@pytest.mark.parametrize("search", ["greedy", "one_pass", "exact", "tangent", "shortlist"])
def test_joint_counts_all_neurons_of_the_path_token_by_token(search):
    values = toy_scores(
        HandMade(3, 2, layered_head), hand_batch(*LAYERS), score="joint", search=search, top_k=2
    ).values[0]
    # layer 0: .5 * (.1 + .1), .4 * (.2 + 0), -.1 * (0 + .3): the path is neurons 0 and 1,
    # with activations .3 at token 0 and .1 at token 1, and D = .9 at both
    assert values[0].tolist() == pytest.approx([0.10, 0.08, -0.03], abs=1e-6)
    # layer 1: (.3 + .2 + .1 + 0) * 1.1, (.3 + 0 + .1 + .1) * .6, (.3 + .1 + .1 + .1) * 1.5
    assert values[1].tolist() == pytest.approx([0.66, 0.30, 0.90], abs=1e-6)


@pytest.mark.parametrize("search", ["greedy", "exact"])
def test_joint_fisher_squares_each_gradient_before_summing(search):
    values = toy_scores(
        HandMade(3, 2, layered_head),
        hand_batch(*LAYERS),
        score="joint",
        search=search,
        top_k=1,
        kind="ifi",
        target="probability",
    ).values[0]
    # layer 0: .25 * .2, .16 * .2, .01 * .3: the path is neuron 0, .1 at both tokens, D = .25
    assert values[0].tolist() == pytest.approx([0.05, 0.032, 0.003], abs=1e-6)
    # layer 1: (.2 + .2) * (.25 + .04), (.2 + .1) * (.25 + .09), (.2 + .2) * (.25 + .36)
    assert values[1].tolist() == pytest.approx([0.116, 0.102, 0.244], abs=1e-6)


def test_product_net_in_both_scores():
    batch = hand_batch([[[0.6], [0.2]]], [[[0.3], [0.1]]])  # F = (.6 + .2)(.3 + .1)
    model = HandMade(1, 2, product_head)
    complete = toy_scores(model, batch, rule="gauss", n_steps=2)
    assert complete.values[0, :, 0].tolist() == pytest.approx(
        [0.32, 0.16]
    )  # alone; half of it beside the path
    assert complete.gap.max() < 1e-5
    assert complete.f_zero.abs().max() == 0
    joint = toy_scores(model, batch, rule="gauss", n_steps=2, score="joint").values[0, :, 0]
    assert joint.tolist() == pytest.approx(
        [0.32, 1.2 * (0.8 + 0.4) / 2]
    )  # sum_t w * integral of alpha (u + v)


# ---- completeness


@pytest.mark.parametrize(("rule", "order"), [("right", 1), ("midpoint", 2), ("gauss", 6)])
@pytest.mark.parametrize(("search", "shape"), [("greedy", (3, 3)), ("one_pass", (3,))])
def test_the_gap_shrinks_with_steps_at_each_rules_own_rate(rule, order, search, shape):
    model, batch = Chain(), chain_batch()
    gaps = [toy_scores(model, batch, rule=rule, search=search, n_steps=m).gap for m in (8, 32)]
    assert gaps[0].shape == shape
    middle = [gap.median().item() for gap in gaps]
    assert middle[1] < max(1e-5, 1.3 * middle[0] / 4**order)


def test_one_pass_scores_sum_to_full_minus_zero():
    scores = toy_scores(Chain(), chain_batch(), search="one_pass", rule="gauss", n_steps=16)
    assert torch.allclose(scores.values.sum((1, 2)), scores.f_full - scores.f_zero, rtol=1e-3)


@pytest.mark.parametrize(
    "choices", [{"kind": "ifi"}, {"score": "joint"}, {"search": "exact"}, {"completeness": False}]
)
def test_no_gap_where_completeness_is_not_defined_or_not_wanted(choices):
    scores = toy_scores(Chain(), chain_batch(), **choices)
    assert scores.gap is None
    assert scores.f_zero is None
    assert scores.f_full.shape == (3,)


@pytest.mark.parametrize("rule", ["right", "stieltjes"])
def test_leaving_completeness_out_leaves_the_scores_alone(rule):
    model, batch = Chain(), chain_batch()
    found = [toy_scores(model, batch, rule=rule, completeness=wanted).values for wanted in (True, False)]
    assert torch.allclose(*found, atol=1e-7)


def test_a_gap_of_nothing_is_zero_and_of_something_from_nothing_infinite():
    gap = completeness_gap(torch.tensor([0.0, 1.0, 1.1]), torch.tensor([0.0, 0.0, 1.0]))
    assert gap.tolist() == pytest.approx([0, float("inf"), 0.1])
