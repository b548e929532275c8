"""One step of RMisU (Eq. 11-16): the three losses of the path's neurons, and the optimiser that trains them.

The frozen model of Eq. 12-15 is the same model with the overlay switched off: there is no second copy in
memory, and no gradient buffer but those of the path's own rows and columns.

Text neurons above `layer_index` get no gradient from L_f and L_r, which are measured below them; L_CE alone
trains them (`train_above`), or they stay as pruning left them. All vision neurons lie below, and get all
three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from mipnb.batches import Batch, batches, encode, take_batch
from mipnb.benchmarks import Question
from mipnb.models import text_layers
from mipnb.overlay import Overlay
from mipnb.pools import Pool
from mipnb.precision import mixed_precision
from mipnb.steering import (
    DISTANCES,
    FORGET_TOKENS,
    MASKS,
    distance,
    end_direction,
    hidden_state,
    hidden_state_and_logprob,
    random_direction,
    steering_target,
    token_mask,
    token_weights,
)

DIRECTIONS = ("input", "shared", "end")
SCHEDULES = ("constant", "linear", "cosine")
LOSSES = ("loss_forget", "loss_retain", "loss_ce")


@dataclass(frozen=True)
class EditConfig:
    """How RMisU trains: total = forget_weight * L_f + retain_weight * L_r + ce_weight * L_CE (Eq. 16).

    Attributes:
        layer_index: the decoder layer, from 0, at whose output L_f and L_r are measured.
        n_steps: steps of AdamW, without weight decay.
        learning_rate: at the start.
        steering_scale: lambda of Eq. 13.
        forget_weight, retain_weight (gamma), ce_weight: the weights of the three losses.
        retain_tokens: where L_r acts on batches with answers: "all", "answer" or "prompt"; those without (neighbours) are
            held at all tokens. If the last decoder layer is steered, no other reads the prompt's states, and "answer" holds
            what is said.
        forget_tokens: where L_f acts: "all", "answer", "prompt" or "onset" (see `steering.token_weights`).
        distance: "relative" or "dimension" (see `steering`).
        train_above: whether L_CE trains the text neurons above layer_index.
        prune_first: start from the silenced neurons, not from the vanilla ones.
        direction: "input": each forget input is steered its own random way (Eq. 12); "shared": all the same random
            way, as in RMU (Li et al. 2024); "end": all to where answers end (`steering.end_direction`), so that nothing
            is said in place of something broken. Inputs steered each its own way average out: states shrink toward zero
            and keep what they said, which the next normalisation brings back.
        redraw: draw every input's direction anew at every visit; else it keeps one.
        schedule: of the learning rate, down to 0: "constant", "linear" or "cosine".
        clip_norm: largest norm of the gradient.
    """

    layer_index: int = 1
    n_steps: int = 150
    learning_rate: float = 5e-3
    steering_scale: float = 1.0
    forget_weight: float = 1.0
    retain_weight: float = 3.0
    ce_weight: float = 3.0
    forget_tokens: str = "all"
    retain_tokens: str = "all"
    distance: str = "relative"
    train_above: bool = True
    prune_first: bool = True
    direction: str = "input"
    redraw: bool = False
    schedule: str = "cosine"
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        choices = {"forget_tokens": FORGET_TOKENS, "retain_tokens": MASKS, "distance": DISTANCES}
        choices |= {"direction": DIRECTIONS, "schedule": SCHEDULES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {allowed}")
        for name in (f.name for f in fields(self) if f.type in ("float", "int")):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}, expected a finite number of at least 0")


def training_batches(
    processor, questions: Sequence[Question], size: int, limit: int, seed: int, device: str = "cpu"
) -> list[Batch]:
    """Encoded batches for `edit`, each of one modality and of like length, so that there is little padding.

    Args:
        processor: the model's own.
        questions: with answers, any mixture.
        size: text questions a batch; with pictures, which cost more than twice as much, half as many (at least 1).
        limit: at most so many batches a modality (more than the steps of an edit are never seen); which, the
            seed says.
        seed: of the draw.
        device: where the tensors go.
    """
    random = np.random.default_rng(seed)
    shuffled = [questions[i] for i in random.permutation(len(questions))]
    kept = []
    for modality, part in (("text", size), ("image_text", max(1, size // 2))):
        drawn = [question for question in shuffled if question.modality == modality][: part * limit]
        ordered = sorted(drawn, key=lambda question: len(question.prompt) + len(question.answer))
        kept += batches(ordered, part)
    return [encode(processor, group, device=device) for group in kept]


def unanswered(batches: Sequence[Batch]) -> list[Batch]:
    """The batches without labels: only their hidden states are kept (see `neighbours`)."""
    return [{key: tensor for key, tensor in batch.items() if key != "labels"} for batch in batches]


def fixed_direction(model: nn.Module, retain_batches: Sequence[Batch], config: EditConfig) -> Tensor | None:
    """The direction that the model itself gives (direction "end"): float32 (1, 1, hidden); None where it is drawn."""
    if config.direction != "end":
        return None
    return end_direction(model, retain_batches, text_layers(model)[config.layer_index])


def forget_pass(
    model: nn.Module, trained: Overlay, pools: list[Pool], config: EditConfig, fixed: Tensor | None = None
) -> float:
    """L_f (Eq. 14), its gradient added up batch by batch; the layers above layer_index are not computed.

    `fixed`: from `fixed_direction`.
    """
    return sum(_forget(model, trained, pool, config, fixed, len(pools)) for pool in pools)


def _forget(
    model: nn.Module, trained: Overlay, pool: Pool, config: EditConfig, fixed: Tensor | None, n_pools: int
) -> float:
    """One pool's share of L_f: 1 of n_pools."""
    layer = text_layers(model)[config.layer_index]
    index, batch, frozen = pool.draw(model, layer, config.n_steps)
    direction = _drawn(pool, index, frozen, config) if fixed is None else fixed
    target = steering_target(frozen, config.steering_scale, direction)
    weights = token_weights(batch, config.forget_tokens)

    def part(rows: slice) -> float:
        """What these rows of the batch (questions) add to L_f, unweighted; its weighted gradient is added up."""
        with trained.on(), mixed_precision():
            state = hidden_state(model, take_batch(batch, rows.start, rows.stop), layer)
        loss = distance(state, target[rows], frozen[rows], weights[rows], config.distance) / n_pools
        loss = loss * _share(weights, rows)
        _backward(config.forget_weight * loss, trained)
        return loss.item()

    return sum(pool.in_parts(part, batch))


def held_tokens(batch: Batch, config: EditConfig) -> Tensor:
    """The tokens at which L_r acts: bool (batch, tokens), see `EditConfig.retain_tokens`."""
    return token_mask(batch, config.retain_tokens if "labels" in batch else "all")


def _share(weights: Tensor, rows: slice) -> float:
    """How much of a weighted mean over tokens (or one over a mask's) some rows of a batch make up; 1 for all of them."""
    return weights[rows].sum().item() / weights.sum().item()


def _drawn(pool: Pool, index: int, frozen: Tensor, config: EditConfig) -> Tensor:
    """Random directions for a batch with vanilla states `frozen`: one an input, or one for all."""
    if config.direction == "shared":
        return random_direction(frozen.shape[-1], pool.key[:1])
    seed = [*pool.key, index, pool.visits if config.redraw else 0]
    return random_direction(frozen.shape[-1], seed, len(frozen))


def retain_pass(
    model: nn.Module, trained: Overlay, pools: list[Pool], config: EditConfig
) -> dict[str, float]:
    """L_r (Eq. 15) over `retain_tokens`, and L_CE (Eq. 11) over the answers, from one pass a batch.

    Batches without labels (neighbours) have L_r alone, over all tokens but padding.
    """
    totals = dict.fromkeys(LOSSES[1:], 0.0)
    n_answered = sum("labels" in pool.batches[0] for pool in pools)
    for pool in pools:
        for retain, entropy in _retain(model, trained, pool, config, (len(pools), n_answered)):
            totals["loss_retain"] += retain
            totals["loss_ce"] += entropy
    return totals


def _retain(
    model: nn.Module, trained: Overlay, pool: Pool, config: EditConfig, counts: tuple[int, int]
) -> list[tuple[float, float]]:
    """One pool's shares of L_r and L_CE: 1 of the pools, 1 of those with answers; a pair for each part of its batch."""
    layer = text_layers(model)[config.layer_index]
    _, batch, frozen = pool.draw(model, layer, config.n_steps)
    mask = held_tokens(batch, config)

    def part(rows: slice) -> tuple[float, float]:
        """What these rows of the batch (questions) add to L_r and L_CE, unweighted; the weighted sum's gradient is added up."""
        state, logprob = _retained(model, trained, take_batch(batch, rows.start, rows.stop), layer)
        retain = distance(state, frozen[rows], frozen[rows], mask[rows], config.distance) / counts[0]
        retain, entropy = retain * _share(mask, rows), torch.zeros(())
        if logprob is not None:
            entropy = -logprob.mean() / counts[1] * (len(logprob) / len(mask))
        _backward(config.retain_weight * retain + config.ce_weight * entropy.to(retain.device), trained)
        return retain.item(), entropy.item()

    return pool.in_parts(part, batch)


def _retained(
    model: nn.Module, trained: Overlay, batch: Batch, layer: nn.Module
) -> tuple[Tensor, Tensor | None]:
    """The edited model's hidden state, and the answers' log-probability if there are answers."""
    with trained.on(), mixed_precision():
        if "labels" in batch:
            return hidden_state_and_logprob(model, batch, layer)
        return hidden_state(model, batch, layer), None


def _backward(loss: Tensor, trained: Overlay) -> None:
    """Add the loss's gradients to those there are, all or, if memory runs out, none."""
    if not loss.requires_grad:  # every chosen neuron lies above the layer the loss is measured at
        return
    at = trainable(trained)
    for tensor, gradient in zip(at, torch.autograd.grad(loss, at, allow_unused=True), strict=True):
        if gradient is not None:
            tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient


def trainable(trained: Overlay) -> list[Tensor]:
    return [tensor for part in trained.weights for tensor in part.tensors() if tensor.requires_grad]


def optimiser(trained: Overlay, config: EditConfig) -> tuple:
    """AdamW over the overlay's trained tensors, and its schedule."""
    for part in trained.weights:
        above = part.branch == "text" and part.layer > config.layer_index
        for tensor in part.tensors():
            tensor.requires_grad_(config.train_above or not above)
    if not trainable(trained):
        raise ValueError(
            f"no neuron to train: all lie above layer_index {config.layer_index}; set train_above"
        )
    adamw = torch.optim.AdamW(trainable(trained), lr=config.learning_rate, weight_decay=0.0)
    shapes = {
        "constant": lambda step: 1.0,
        "linear": lambda step: 1 - step / max(1, config.n_steps),
        "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / max(1, config.n_steps))),
    }
    return adamw, torch.optim.lr_scheduler.LambdaLR(adamw, shapes[config.schedule])
