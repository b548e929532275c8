"""Integration over the change of the value: exact where shares are constant, near enough where equal steps are not."""

import pytest
import torch
from toys import ACTIVATION, SUMS, WEIGHT, Chain, HandMade, chain_batch, hand_batch, square_head, toy_scores

from mipnb.stieltjes import BOUND, FIRST, SHARES, _cut, _Point, _weights

SHARP = 12.0


def sharp_head(outs: list) -> torch.Tensor:
    """A jump near 0: F rises to 0.9 within the first tenths of the activation."""
    return 0.05 + 0.85 * torch.tanh(SHARP * (outs[0] @ torch.tensor([0.8, 0.2])).sum(1))


@pytest.mark.parametrize("n_steps", [2, 4])
def test_a_neurons_share_of_the_change_is_exact_where_shares_are_constant(n_steps):
    scores = toy_scores(HandMade(2, 1, sharp_head), hand_batch(ACTIVATION), rule="stieltjes", n_steps=n_steps)
    parts = SUMS * torch.tensor([0.8, 0.2])
    change = scores.f_full - scores.f_zero[:, 0]
    expected = change[:, None] * parts / parts.sum(-1, keepdim=True)
    found = scores.values[:, 0]
    assert torch.allclose(found, expected, rtol=0.02)
    equal = toy_scores(HandMade(2, 1, sharp_head), hand_batch(ACTIVATION), rule="right", n_steps=n_steps)
    assert ((equal.values[:, 0] - expected).abs() > 0.3 * expected).all()


def test_it_agrees_with_gauss_on_the_quadratic_net():
    batch = hand_batch(ACTIVATION)
    found = [
        toy_scores(HandMade(2, 1, square_head), batch, rule=rule, n_steps=8).values
        for rule in ("stieltjes", "gauss")
    ]
    assert torch.allclose(*found, rtol=1e-3, atol=1e-5)
    parts = SUMS * WEIGHT
    assert torch.allclose(found[0][:, 0], parts * parts.sum(-1, keepdim=True), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("search", ["greedy", "one_pass"])
def test_it_converges_to_the_same_integrals(search):
    model, batch = Chain(), chain_batch()
    fine = toy_scores(model, batch, rule="gauss", n_steps=32, search=search).values
    errors = [
        ((toy_scores(model, batch, rule="stieltjes", n_steps=m, search=search).values - fine).abs().sum())
        for m in (4, 32)
    ]
    assert errors[1] < 0.3 * errors[0] + 1e-4
    assert errors[1] < 0.05 * fine.abs().sum()


@pytest.mark.parametrize("kind", ["igi", "ifi"])
def test_scores_do_not_depend_on_the_batch_or_its_chunks(kind):
    model, batch = Chain(), chain_batch(samples=5)
    choices = {"rule": "stieltjes", "kind": kind, "search": "one_pass"}
    whole = toy_scores(model, batch, **choices)
    for max_rows in (1, 3, 100):
        assert torch.allclose(
            toy_scores(model, batch, max_rows=max_rows, **choices).values, whole.values, atol=1e-6
        )
    alone = {key: tensor[2:3] for key, tensor in batch.items()}
    assert torch.allclose(toy_scores(model, alone, **choices).values[0], whole.values[2], atol=1e-6)


def test_squared_gradients_are_averaged_over_the_same_points():
    batch = hand_batch(ACTIVATION)
    found = toy_scores(
        HandMade(2, 1, square_head), batch, kind="ifi", target="probability", rule="stieltjes", n_steps=32
    )
    fine = toy_scores(
        HandMade(2, 1, square_head), batch, kind="ifi", target="probability", rule="gauss", n_steps=8
    )
    assert torch.allclose(found.values, fine.values, rtol=1e-2)


@pytest.mark.filterwarnings("ignore:every gradient")
def test_a_value_that_never_changes_scores_zero():
    scores = toy_scores(
        HandMade(2, 1, lambda outs: 0.5 + 0 * outs[0].sum((1, 2))), hand_batch(ACTIVATION), rule="stieltjes"
    )
    assert (scores.values == 0).all()


def test_exact_refuses_it():
    for search in ("exact", "tangent", "shortlist"):
        with pytest.raises(ValueError, match=f"`{search}` has many"):
            toy_scores(Chain(), chain_batch(), search=search, rule="stieltjes")


def test_the_interval_of_the_largest_change_is_cut_whatever_the_order_of_points():
    alphas = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.4, 0.4]])
    values = torch.tensor([[0.1, 0.9], [0.9, 0.5], [0.3, 0.6]])  # changes .2 and .6; -.3 and -.1
    points = [_Point(alpha, value, None) for alpha, value in zip(alphas, values, strict=True)]
    assert _cut(points).tolist() == pytest.approx([0.7, FIRST * 0.4])


def test_intervals_are_scaled_to_the_change_but_where_it_goes_against_the_slope():
    alphas, values = (0.0, 1.0, 0.5), (0.2, 0.5, 0.6)
    gradients = (None, 2.0, 4.0)  # of the one neuron in the set; the other is in none
    points = [
        _Point(torch.tensor([alpha]), torch.tensor([value]), slope and {0: torch.tensor([[slope, 7.0]])})
        for alpha, value, slope in zip(alphas, values, gradients, strict=True)
    ]
    rising = 0.4 / 4.0  # the change over [0, 0.5] by its upper end's slope alone
    found = _weights(points, {0: torch.tensor([[1.0, 0.0]])})
    assert found[:, 0].tolist() == pytest.approx([0, 0.25, rising + 0.25])  # F falls over [0.5, 1]
    level = _Point(
        torch.tensor([0.75]), torch.tensor([0.6]), {0: torch.tensor([[3.0, 7.0]])}
    )  # no change below
    assert _weights([*points[:1], points[2], level], {0: torch.tensor([[1.0, 0.0]])})[1:, 0].tolist() == (
        pytest.approx([rising, 0])
    )
    assert _weights(points, None)[:, 0].tolist() == pytest.approx([0, 0.25, 0.5 + 0.25])


def test_where_nothing_has_changed_yet_the_widest_interval_is_cut():
    ends = [_Point(torch.full((1,), alpha), torch.full((1,), 0.5), None) for alpha in (0.0, 1.0, 0.3)]
    assert _cut(ends).tolist() == pytest.approx([0.65])


def test_with_one_step_the_gradient_at_1_stands_for_all_up_to_the_bound():
    model, batch = HandMade(2, 1, sharp_head), hand_batch(ACTIVATION)
    found = toy_scores(model, batch, rule="stieltjes", n_steps=1)
    at_one = toy_scores(model, batch, rule="right", n_steps=1).values
    change = found.f_full - found.f_zero[:, 0]
    scale = torch.minimum(change / at_one[:, 0].sum(-1), torch.tensor(BOUND))
    assert torch.allclose(found.values[:, 0], scale[:, None] * at_one[:, 0], rtol=1e-4)


@pytest.mark.parametrize(("search", "sets"), [("greedy", 3), ("one_pass", 1)])
def test_the_gap_takes_no_pass(search, sets):
    model, passes = Chain(), []
    model.outs[0].register_forward_pre_hook(lambda *given: passes.append(1))
    for completeness in (False, True):
        passes.clear()
        choices = {"rule": "stieltjes", "n_steps": 4, "completeness": completeness}
        toy_scores(model, chain_batch(), search=search, **choices)
        assert len(passes) == 1 + sets * (1 + 3)


def test_joint_scores_are_refused():
    for search in ("greedy", "one_pass"):
        with pytest.raises(ValueError, match="joint scores add up to none"):
            toy_scores(Chain(), chain_batch(), search=search, score="joint", rule="stieltjes")


def test_shares_of_gradients_that_cancel_out_are_bounded():
    gradients = torch.tensor([[50.0, -49.9]])  # F' = 0.1: shares of 500 and -499
    ends = [
        _Point(torch.zeros(1), torch.zeros(1), None),
        _Point(torch.ones(1), torch.ones(1), {0: gradients}),
    ]
    weights = _weights(ends, {0: torch.ones(1, 2)})
    assert (weights[1] * gradients.abs().sum()).item() == pytest.approx(SHARES)
    few = _weights(ends, {0: torch.tensor([[1.0, 0.0]])})
    assert (few[1] * gradients[0, 0]).item() == pytest.approx(1.0), "one neuron alone has all of the change"


@pytest.mark.parametrize("search", ["greedy", "one_pass", "tangent", "shortlist"])
@pytest.mark.parametrize(("kind", "score"), [("igi", "complete"), ("igi", "joint"), ("ifi", "complete")])
def test_it_is_the_default_where_a_gap_is_defined(search, kind, score):
    scores = toy_scores(Chain(), chain_batch(), search=search, kind=kind, score=score)
    assert (scores.parameters["rule"] == "stieltjes") == (scores.gap is not None)
    assert scores.parameters["rule"] in ("right", "stieltjes")
    if scores.gap is not None:
        assert scores.gap.median() < 0.01
