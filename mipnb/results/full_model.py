"""RMisU of the whole model, with no path: the same three losses, every weight trained (the row `RMisU` of Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pandas as pd
import torch
from torch import Tensor, nn

from mipnb.baselines.settings import Settings
from mipnb.baselines.terms import Term
from mipnb.baselines.training import train
from mipnb.batches import Batch
from mipnb.edits import Edit
from mipnb.losses import held_tokens
from mipnb.models import text_layers
from mipnb.rmisu import EditConfig, fixed_direction
from mipnb.steering import (
    hidden_state,
    hidden_state_and_logprob,
    random_direction,
    steering_target,
    token_weights,
)


def edit_full_model(
    model: nn.Module,
    forget_batches: Sequence[Batch],
    retain_batches: Sequence[Batch],
    config: EditConfig,
    seed: int,
    learning_rate: float,
) -> tuple[Edit, pd.DataFrame]:
    """Train every weight by the weighted sum of L_f, L_r and L_CE (Eq. 11-16); the model is vanilla before and after.

    Batches, steps, targets and weights of the losses are those of `editing.edit`. Two things differ: the learning rate is
    constant, and it is one that a whole model bears.

    Args:
        model: the vanilla model, no parameter taking a gradient.
        forget_batches, retain_batches: as for `editing.edit`.
        config: of RMisU; its own learning rate is not used.
        seed: order of batches and directions of steering.
        learning_rate: of AdamW.

    Returns:
        The edit, and one row a step: step, loss_forget, loss_retain (both weighted), loss.
    """
    layer = text_layers(model)[config.layer_index]
    fixed = fixed_direction(model, retain_batches, config)
    states, share = _states(layer), _pools_an_answered(retain_batches)
    forget = Term(_states(layer), _forget_loss(config), _targets(layer, config, seed, fixed)), forget_batches
    retain = Term(_states_and_answers(layer), _retain_loss(config, share), states), retain_batches
    settings = Settings(
        n_steps=config.n_steps, learning_rate=learning_rate, retain_weight=1.0, clip_norm=config.clip_norm
    )
    return train(model, forget, retain, settings, seed, metadata={"method": "rmisu, all weights"})


def _pools_an_answered(batches: Sequence[Batch]) -> float:
    """Pools of batches (`pools.pools`) for each that has answers: what makes L_CE a mean over those that have."""
    found = {("labels" in batch, "pixel_values" in batch) for batch in batches}
    return len(found) / max(1, sum(answered for answered, _ in found))


def _states(layer: nn.Module):
    return lambda model, batch, settings: hidden_state(model, batch, layer).float()


def _states_and_answers(layer: nn.Module):
    """The layer's states, and the answers' log-probability where there are answers, else None."""

    def sees(model: nn.Module, batch: Batch, settings: Settings) -> tuple[Tensor, Tensor | None]:
        if "labels" in batch:
            return hidden_state_and_logprob(model, batch, layer)
        return hidden_state(model, batch, layer), None

    return sees


def _targets(layer: nn.Module, config: EditConfig, seed: int, fixed: Tensor | None):
    """What the forget states are compared with: (samples, 2, tokens, hidden), the vanilla state and v_f (Eq. 12-13)."""
    drawn = count()

    def reference(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
        frozen = hidden_state(model, batch, layer).float()
        direction = draw(frozen) if fixed is None else fixed
        return torch.stack([frozen, steering_target(frozen, config.steering_scale, direction)], 1)

    def draw(frozen: Tensor) -> Tensor:
        """Random directions, one for all inputs or one each."""
        if config.direction == "shared":
            return random_direction(frozen.shape[-1], [seed])
        return random_direction(frozen.shape[-1], [seed, next(drawn)], len(frozen))

    return reference


def _forget_loss(config: EditConfig):
    def loss(state: Tensor, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
        """L_f of each sample, weighted: float32 (batch,)."""
        frozen, target = reference.unbind(1)
        weights = token_weights(batch, config.forget_tokens)
        return config.forget_weight * _distances(state, target, frozen, weights, config.distance)

    return loss


def _retain_loss(config: EditConfig, share: float):
    def loss(seen: tuple[Tensor, Tensor | None], batch: Batch, frozen: Tensor, settings: Settings) -> Tensor:
        """L_r and L_CE of each sample, weighted: float32 (batch,)."""
        state, logprob = seen
        mask = held_tokens(batch, config)
        held = config.retain_weight * _distances(state, frozen, frozen, mask, config.distance)
        return held if logprob is None else held - config.ce_weight * share * logprob

    return loss


def _distances(state: Tensor, target: Tensor, frozen: Tensor, weights: Tensor, kind: str) -> Tensor:
    """`steering.distance` divided among the samples, so that their mean is the mean over all tokens that count: (samples,)."""
    squared = (state.float() - target).square().sum(-1)  # (samples, tokens)
    unit = frozen.square().sum(-1).clamp_min(1e-12) if kind == "relative" else frozen.shape[-1]
    return (squared / unit * weights).sum(-1) * len(weights) / weights.sum()
