"""Batches of both sets in one pass: the same losses and gradients as of each batch in a pass of its own."""

from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from tiny_qwen import tiny_batch, tiny_model

from mipnb import losses
from mipnb import pools as pools_module
from mipnb.answers import answer_value
from mipnb.losses import Pass, passes_of, step_losses
from mipnb.measuring import counted_passes
from mipnb.models import ffns, fingerprint, text_layers
from mipnb.overlay import overlay
from mipnb.paths import NeuronPath
from mipnb.pools import pools
from mipnb.rmisu import LOSSES, EditConfig, optimiser, trainable, unanswered
from mipnb.steering import hidden_state, random_direction, steering_target, token_mask, token_weights

CONFIG = EditConfig(
    n_steps=3, retain_weight=2.0, ce_weight=0.5, forget_tokens="onset", retain_tokens="answer"
)
LAST = 2


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Sums are compared: bfloat16 products would hide a wrong one."""
    for module in (losses, pools_module):
        monkeypatch.setattr(module, "mixed_precision", nullcontext)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def trained(model):
    """Neurons of both branches that are no longer the vanilla ones."""
    mark = fingerprint(model)
    paths = [
        NeuronPath("text", ((1, 4, 20), (0, 2), (5,)), 24, mark),
        NeuronPath("vision", ((3, 7), (0, 19)), ffns(model, "vision")[0].n_neurons, mark),
    ]
    made = overlay(model, paths, silent=False)
    drawn = torch.Generator().manual_seed(0)
    for part in made.weights:
        for tensor in part.tensors():
            tensor += 0.1 * torch.randn(tensor.shape, generator=drawn)
    optimiser(made, CONFIG)
    return made


def sets() -> list[list[dict]]:
    """A batch of each modality to forget and to keep, and neighbours, all of other sizes and lengths."""
    forget = [tiny_batch(seed, seed > 1, size=2) for seed in (1, 2)]
    retain = [tiny_batch(seed, seed > 11, size=3, tokens=12) for seed in (11, 12)]
    near = [tiny_batch(seed, seed > 21, size=4, tokens=10) for seed in (21, 22)]
    return [forget, [*retain, *unanswered(near)]]


def stepped(model, trained, passes, config) -> tuple[dict[str, float], list[torch.Tensor]]:
    """The losses of a step, and the gradients that it leaves."""
    for tensor in trainable(trained):
        tensor.grad = None
    found = step_losses(model, trained, passes, config)
    return found, [tensor.grad.clone() for tensor in trainable(trained)]


def same(found, expected):
    assert list(found[0]) == list(LOSSES)
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * other.abs().max().item())


def drawn(model, config) -> list[Pass]:
    return passes_of(model, *(pools(part, 7, which) for which, part in enumerate(sets())), config)


@pytest.fixture(params=[1, LAST], ids=["a layer within", "the last layer"])
def config(request):
    return replace(CONFIG, layer_index=request.param)


@pytest.fixture
def alone(model, trained, config):
    """Losses and gradients of every batch in a pass of its own."""
    singly = [Pass([member]) for each in drawn(model, config) for member in each.members]
    assert len(singly) == 6
    return stepped(model, trained, singly, config)


def test_batches_in_one_pass_have_the_losses_and_gradients_of_each_alone(model, trained, config, alone):
    assert all(value > 0 for value in alone[0].values())
    same(stepped(model, trained, drawn(model, config), config), alone)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_passes_in_parts_add_up(model, trained, config, alone, rows):
    together = drawn(model, config)
    for each in together:
        each.rows = rows
    same(stepped(model, trained, together, config), alone)


def test_one_pass_a_modality_and_place_where_it_ends(model, trained, config):
    with counted_passes(model) as seen:
        step_losses(model, trained, together := drawn(model, config), config)
    n_passes = 2 if config.layer_index == LAST else 4
    assert (len(together), seen.backward) == (n_passes, n_passes)
    assert seen.forward == n_passes + 6  # and the vanilla states of each batch


def test_words_are_scored_only_where_answers_are_learned(model, trained):
    """Neither forgotten people's answers nor neighbours are taught, though they go through the same pass."""
    config, scored = replace(CONFIG, layer_index=LAST), []
    own = losses.hidden_state_and_logprob

    def noted(*args):
        state, logprob = own(*args)
        scored.append(logprob.detach())
        return state, logprob

    with patch.object(losses, "hidden_state_and_logprob", noted):
        step_losses(model, trained, drawn(model, config), config)
    assert [found.isfinite().tolist() for found in scored] == [[False] * 2 + [True] * 3 + [False] * 4] * 2


def test_either_set_may_be_left_out(model, trained, config):
    forget, retain = (pools(part, 7, which) for which, part in enumerate(sets()))
    only = step_losses(model, trained, passes_of(model, forget, [], config), config)
    rest = step_losses(model, trained, passes_of(model, [], retain, config), config)
    assert (only["loss_retain"], only["loss_ce"], rest["loss_forget"]) == (0, 0, 0)
    both = step_losses(model, trained, drawn(model, config), config)
    assert both == pytest.approx({name: only[name] + rest[name] for name in LOSSES}, rel=1e-4)


def test_losses_by_hand_are_means_over_sets_and_modalities(model, trained, config):
    config, layer = replace(config, direction="shared"), text_layers(model)[config.layer_index]
    (forget, retain), direction = sets(), random_direction(32, [7])
    found = {name: [] for name in LOSSES}
    for batch in (*forget, *retain):
        forgotten = any(batch is one for one in forget)
        with torch.no_grad():
            frozen = hidden_state(model, batch, layer)
            with trained.on():
                state = hidden_state(model, batch, layer)
                if "labels" in batch and not forgotten:
                    found["loss_ce"].append(-answer_value(model, batch, "probability").log().mean())
        target = steering_target(frozen, config.steering_scale, direction) if forgotten else frozen
        held = token_mask(batch, "answer" if "labels" in batch else "all")
        weights = token_weights(batch, "onset") if forgotten else held
        apart = (state - target).square().sum(-1) / frozen.square().sum(-1)
        found[LOSSES[not forgotten]].append((apart * weights).sum() / weights.sum())
    assert [len(values) for values in found.values()] == [2, 4, 2]
    expected = {name: float(torch.stack(values).mean()) for name, values in found.items()}
    assert step_losses(model, trained, drawn(model, config), config) == pytest.approx(expected, rel=1e-4)
