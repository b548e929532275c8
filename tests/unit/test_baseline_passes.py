"""Passes over several batches at once, and narrowed ones: the same losses and gradients as of each batch on its own."""

from contextlib import nullcontext
from unittest.mock import patch

import pytest
import torch
from tiny_qwen import IMAGE, tiny_batch, tiny_model

from mipnb.answers import answer_value
from mipnb.baselines import Settings, passes, sides, terms
from mipnb.baselines.passes import log_likelihood
from mipnb.baselines.sides import Side, passes_of
from mipnb.joint import joined
from mipnb.lora import LoraConfig, with_updates
from mipnb.models import ffns
from mipnb.pools import pools

SETTINGS = Settings(layer_index=1, steering=3.0, beta=0.5)
PAIRS = {
    "answers": (terms.ASCENT, terms.DESCENT),
    "answers, with a reference": (terms.NPO, terms.DESCENT),
    "states": (terms.STEER, terms.HOLD),
    "not the same": (terms.ASCENT, terms.KL),
}


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Sums of halves are compared: bfloat16 products would hide a wrong one."""
    monkeypatch.setattr(sides, "mixed_precision", nullcontext)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def made(pair, model) -> list[Side]:
    """Two sides, a batch of each modality in each, the second one's longer and larger."""
    small = [tiny_batch(seed, pictured=seed > 1, size=2) for seed in (1, 2)]
    large = [tiny_batch(seed, pictured=seed > 11, size=3, tokens=12) for seed in (11, 12)]
    found = [
        Side(term, pools(batches, 1, which), weight)
        for which, (term, batches, weight) in enumerate(zip(pair, (small, large), (1.0, 3.0), strict=True))
    ]
    for side in found:
        side.remember(model, SETTINGS, {})
    return found


def stepped(model, steps, weights) -> tuple[list[float], list[torch.Tensor]]:
    """Unweighted losses, and the gradients that all passes have added to the weights."""
    totals = {}
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for each in steps:
            for side, value in each.backward(model, weights, SETTINGS).items():
                totals[side] = totals.get(side, 0) + value
        return list(totals.values()), [weight.grad.clone() for weight in weights]
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None


def weights_of(model) -> list[torch.Tensor]:
    return [network.output.weight for branch in ("text", "vision") for network in ffns(model, branch)[:1]]


def same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-4, abs=1e-6)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * other.abs().max().item())


@pytest.fixture(params=PAIRS)
def alone(request, model):
    """The sides of a pair, and the losses and gradients of every batch in a pass of its own."""
    pair = PAIRS[request.param]
    singly = [each for side in made(pair, model) for each in passes_of([side])]
    return pair, stepped(model, singly, weights_of(model))


def test_batches_in_one_pass_have_the_losses_and_gradients_of_each_alone(model, alone):
    pair, expected = alone
    together = passes_of(made(pair, model))
    assert len(together) == (4 if pair[0].sees is not pair[1].sees else 2)
    same(stepped(model, together, weights_of(model)), expected)


def test_gradients_are_weighted_and_losses_told_are_not(model):
    _, retain = made(PAIRS["answers"], model)
    found = []
    for weight in (1.0, 3.0):
        retain.weight = weight  # each pool has one batch, which comes round again
        found.append(stepped(model, passes_of([retain]), weights_of(model)))
    once, thrice = found
    same(thrice, (once[0], [3 * gradient for gradient in once[1]]))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_passes_in_parts_add_up(model, alone, rows):
    pair, expected = alone
    together = passes_of(made(pair, model))
    for each in together:
        each.rows = rows
    same(stepped(model, together, weights_of(model)), expected)


def test_a_pass_that_runs_out_of_memory_leaves_no_gradient_behind(model):
    pair = PAIRS["answers"]
    expected = stepped(model, passes_of(made(pair, model)), weights_of(model))
    grad, calls = torch.autograd.grad, []

    def failing(*args, **kwargs):
        calls.append(args)
        found = grad(*args, **kwargs)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("of the test")
        return found

    with patch("torch.autograd.grad", failing), pytest.warns(RuntimeWarning, match="going on with 2"):
        found = stepped(model, passes_of(made(pair, model)), weights_of(model))
    assert len(calls) > 3
    same(found, expected)


@pytest.mark.parametrize("pictured", [False, True])
def test_joined_batches_keep_their_samples(model, pictured):
    both = [tiny_batch(1, pictured, size=2), tiny_batch(2, pictured, size=3, tokens=12)]
    whole = joined(both)
    assert whole["input_ids"].shape == (5, 18 if pictured else 12)
    assert whole["attention_mask"][0].sum() == both[0]["attention_mask"][0].sum()
    assert (whole["input_ids"] == IMAGE).sum() == sum((batch["input_ids"] == IMAGE).sum() for batch in both)
    expected = torch.cat([answer_value(model, batch, "log_likelihood") for batch in both])
    torch.testing.assert_close(answer_value(model, whole, "log_likelihood"), expected, rtol=1e-5, atol=1e-4)
    assert joined(both[:1]) is both[0]


def test_padding_repeats_the_last_token_and_counts_nowhere():
    short, long = tiny_batch(1, False, size=2, tokens=5), tiny_batch(2, False, size=1, tokens=9)
    whole = joined([short, long])
    assert (whole["input_ids"][:2, 5:] == short["input_ids"][:, -1:]).all()
    assert (whole["labels"][:2, 5:] == -100).all()
    assert not whole["attention_mask"][:2, 5:].any()


# Narrow


def positions_of_last_network(model, work) -> list[int]:
    """How many positions the last network of the language model saw, call by call."""
    seen, last = [], ffns(model, "text")[-1].output
    hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0][..., 0].numel()))
    try:
        work()
    finally:
        hook.remove()
    return seen


def test_the_last_network_works_before_answers_only():
    model, batch = tiny_model(), tiny_batch(3, True)
    expected = answer_value(model, batch, "log_likelihood")
    torch.testing.assert_close(log_likelihood(model, batch), expected, rtol=1e-4, atol=1e-4)
    assert positions_of_last_network(model, lambda: log_likelihood(model, batch)) == [3 * 3]


@pytest.mark.parametrize(
    "narrow",
    [lambda *args: 1 / 0, lambda *args: torch.full((1,), -1.0)],
    ids=["not possible", "another value"],
)
def test_a_model_that_cannot_be_narrowed_is_run_whole(monkeypatch, narrow):
    def refused(*args):
        try:
            return narrow(*args)
        except ZeroDivisionError:
            raise ValueError("no module that holds the network alone") from None

    model, batch = tiny_model(), tiny_batch(3, False)
    monkeypatch.setattr(passes, "narrow_value", refused)
    assert torch.equal(log_likelihood(model, batch), answer_value(model, batch, "log_likelihood"))
    assert torch.equal(log_likelihood(model, batch), answer_value(model, batch, "log_likelihood"))


def test_networks_with_low_rank_updates_are_tried_for_themselves():
    model, batch = tiny_model(), tiny_batch(3, False)
    log_likelihood(model, batch)
    adapted = with_updates(model, LoraConfig(r=2, target_modules=["down_proj", "up_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    torch.testing.assert_close(log_likelihood(model, batch), answer_value(model, batch, "log_likelihood"))
