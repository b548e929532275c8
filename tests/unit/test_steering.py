"""Directions of steering (Eq. 12-13): drawn on the sphere, or given by the model where its answers end."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_qwen import tiny_batch, tiny_model
from torch import Tensor

from mipnb.batches import IGNORED
from mipnb.editing import edit
from mipnb.edits import same_bits
from mipnb.losses import _direction
from mipnb.models import fingerprint, text_layers
from mipnb.paths import NeuronPath
from mipnb.rmisu import EditConfig
from mipnb.steering import end_direction, hidden_state, random_direction, steering_target, unit


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def batches():
    return [tiny_batch(seed, pictured) for seed, pictured in ((1, False), (2, True))]


def test_the_target_has_the_frozen_norm_times_lambda_and_one_direction_an_input():
    frozen, direction = torch.randn(3, 5, 16), random_direction(16, (1, 2), 3)
    target = steering_target(frozen, 2.0, direction)
    torch.testing.assert_close(target.norm(dim=-1), 2 * frozen.norm(dim=-1))
    torch.testing.assert_close(unit(target), direction.expand_as(target))
    assert (direction[0, 0] @ direction[1, 0]).abs() < 0.99
    assert same_bits(direction, random_direction(16, (1, 2), 3))
    assert not same_bits(direction, random_direction(16, (1, 3), 3))


def test_directions_are_uniform_on_the_sphere():
    directions = random_direction(8, (0,), 4000)[:, 0]
    assert directions.mean(0).abs().max() < 0.03  # all-positive draws (torch.rand) would give about 0.3
    torch.testing.assert_close(directions.T @ directions / 4000, torch.eye(8) / 8, atol=0.02, rtol=0)


def test_a_shared_direction_is_one_for_all_batches_of_a_seed_and_an_input_has_its_own():
    config, frozen = EditConfig(direction="shared"), torch.randn(2, 4, 16)
    pools = [SimpleNamespace(key=[7, 0, kind], visits=1) for kind in (0, 1)]
    one, other = (_direction(pool, index, frozen, config) for pool, index in zip(pools, (0, 3), strict=True))
    assert same_bits(one, other)
    own = replace(config, direction="input")
    each = [_direction(pool, 0, frozen, own) for pool in pools]
    assert each[0].shape == (2, 1, 16)
    assert not same_bits(*each)


def test_the_end_direction_is_the_mean_state_before_the_end_mark(model, batches):
    """By hand: each answer's last label is predicted one position before it; padding may stand on either side."""
    layer, states = text_layers(model)[1], []
    for batch in batches:
        with torch.no_grad():
            state = hidden_state(model, batch, layer)
        for row, labels in zip(state, batch["labels"], strict=True):
            states.append(unit(row[int((labels != IGNORED).nonzero()[-1]) - 1]))
    mean = torch.stack(states).mean(0)
    found = end_direction(model, batches, layer)
    torch.testing.assert_close(found[0, 0], mean / mean.norm())
    torch.testing.assert_close(found.norm(), torch.ones(()))
    bare = [{key: value for key, value in batch.items() if key != "labels"} for batch in batches]
    with pytest.raises(ValueError, match="no retain batch has answers"):
        end_direction(model, bare, layer)


def test_steered_to_where_answers_end_the_states_turn_that_way(model, batches):
    config = EditConfig(n_steps=30, learning_rate=1e-2, direction="end", retain_weight=0.0, ce_weight=0.0)
    mark = fingerprint(model)
    path = NeuronPath("text", ((1, 4, 20), (0, 2), (5,)), 24, mark, "tiny", {})
    layer = text_layers(model)[config.layer_index]
    direction = end_direction(model, batches, layer)
    change, history = edit(model, [path], batches, batches, config)
    assert history.loss_forget.iloc[-1] < history.loss_forget.iloc[0]

    def turned() -> Tensor:
        with torch.no_grad():
            return (unit(hidden_state(model, batches[0], layer)) * direction).sum(-1).mean()

    before = turned()
    with change.applied(model):
        assert turned() > before
