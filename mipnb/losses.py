"""The three losses of a step of RMisU (Eq. 11, 14, 15) and their gradients, from as few passes as there can be.

Batches of one modality that a pass runs equally far for go through the model together: those of which only hidden states
are asked stop at the steered layer, those with answers to learn go on to the end. If the last layer is steered, that is
one pass a modality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipnb.batches import IGNORED, Batch, take_batch
from mipnb.joint import add_gradients, joined, shares
from mipnb.memory import in_parts
from mipnb.models import text_layers
from mipnb.overlay import Overlay
from mipnb.pools import Pool
from mipnb.precision import mixed_precision
from mipnb.rmisu import LOSSES, EditConfig, trainable
from mipnb.steering import (
    distance,
    hidden_state,
    hidden_state_and_logprob,
    random_direction,
    steering_target,
    token_mask,
    token_weights,
)


@dataclass(frozen=True, eq=False)
class Member:
    """A pool's part in a pass.

    Attributes:
        pool: batches of one set and modality.
        loss: "loss_forget" or "loss_retain".
        of: how many pools that loss is a mean over.
        answers: how many pools L_CE is a mean over; 0 if this is none of them.
    """

    pool: Pool
    loss: str
    of: int
    answers: int = 0

    def draw(self, model: nn.Module, layer: nn.Module, config: EditConfig, fixed: Tensor | None) -> Drawn:
        """The next batch, with what its states are compared with."""
        index, batch, frozen = self.pool.draw(model, layer, config.n_steps)
        if self.loss == "loss_retain":
            return Drawn(self, batch, frozen, frozen, held_tokens(batch, config).float())
        direction = _direction(self.pool, index, frozen, config) if fixed is None else fixed
        target = steering_target(frozen, config.steering_scale, direction)
        return Drawn(self, batch, frozen, target, token_weights(batch, config.forget_tokens))


@dataclass(frozen=True, eq=False)
class Drawn:
    """A batch of a step.

    Attributes:
        member: whose it is.
        batch: as encoded.
        frozen: vanilla states, float32 (questions, tokens, hidden).
        target: what the states are to be, of the same shape.
        weights: what each token counts, float32 (questions, tokens).
    """

    member: Member
    batch: Batch
    frozen: Tensor
    target: Tensor
    weights: Tensor

    def inputs(self, labelled: bool) -> Batch:
        """What goes through the model; `labelled`: with labels, which mark the answers that are learned, and no others."""
        found = {key: tensor for key, tensor in self.batch.items() if key != "labels"}
        if labelled:
            silent = torch.full_like(self.batch["input_ids"], IGNORED)
            found["labels"] = self.batch["labels"] if self.member.answers else silent
        return found

    def losses(self, state: Tensor, logprob: Tensor, rows: slice, kind: str) -> Iterator[tuple[str, Tensor]]:
        """What some rows (questions) add to the losses, unweighted: names and float32 scalars.

        Args:
            state: theirs, (questions, tokens or more, hidden).
            logprob: of their answers, float32 (questions,).
            rows: which of the batch.
            kind: of distance.
        """
        weights, tokens = self.weights[rows], self.weights.shape[1]
        apart = distance(state[:, :tokens], self.target[rows], self.frozen[rows], weights, kind)
        share = weights.sum().item() / self.weights.sum().item()
        yield self.member.loss, apart / self.member.of * share
        if self.member.answers:
            yield "loss_ce", -logprob.sum() / len(self.weights) / self.member.answers


class Pass:
    """Pools of one modality: a batch of each goes through the model in one pass, every step.

    A pass that does not fit into memory is halved, and gradients of the halves add up to its own.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.rows = sum(member.pool.rows for member in members)

    def backward(
        self, model: nn.Module, trained: Overlay, config: EditConfig, fixed: Tensor | None
    ) -> list[tuple[str, float]]:
        """Add the weighted losses' gradients on the next batches to the neurons' own; returns the unweighted losses."""
        layer = text_layers(model)[config.layer_index]
        drawn = [member.draw(model, layer, config, fixed) for member in self.members]
        labelled = any(member.answers for member in self.members)
        batches = [one.inputs(labelled) for one in drawn]
        whole = joined(batches)

        def part(rows: slice) -> list[tuple[str, float]]:
            """One pass over some rows (questions) of all batches."""
            state, logprob = _seen(model, trained, take_batch(whole, rows.start, rows.stop), layer)
            losses = [
                loss
                for index, own, at in shares(rows, batches)
                for loss in drawn[index].losses(state[at], logprob[at], own, config.distance)
            ]
            total = sum(config.weights[name] * loss for name, loss in losses)
            if total.requires_grad:  # not if every chosen neuron lies above the layer the loss is measured at
                add_gradients(total, trainable(trained))
            return [(name, loss.item()) for name, loss in losses]

        parts, self.rows = in_parts(part, len(whole["input_ids"]), self.rows, "questions")
        return [loss for found in parts for loss in found]


def passes_of(model: nn.Module, forget: list[Pool], retain: list[Pool], config: EditConfig) -> list[Pass]:
    """The passes of a step, of pools of both sets (`pools.pools`); either may be left out.

    Retain batches without labels (neighbours) have L_r alone, over all tokens but padding.
    """
    answered = [pool for pool in retain if "labels" in pool.batches[0]]
    members = [Member(pool, "loss_forget", len(forget)) for pool in forget]
    members += [
        Member(pool, "loss_retain", len(retain), len(answered) * (pool in answered)) for pool in retain
    ]
    last = config.layer_index == len(text_layers(model)) - 1
    groups: dict[tuple[bool, bool], list[Member]] = {}
    for member in members:
        pictured = "pixel_values" in member.pool.batches[0]
        groups.setdefault((pictured, last or member.answers > 0), []).append(member)
    return [Pass(group) for group in groups.values()]


def step_losses(
    model: nn.Module,
    trained: Overlay,
    passes: Sequence[Pass],
    config: EditConfig,
    fixed: Tensor | None = None,
) -> dict[str, float]:
    """L_f, L_r and L_CE of one step, unweighted, each a mean over its pools; the weighted sum's gradient is added up.

    Args:
        model: the vanilla model.
        trained: the path's neurons.
        passes: from `passes_of`.
        config: losses.
        fixed: from `rmisu.fixed_direction`.
    """
    totals = dict.fromkeys(LOSSES, 0.0)
    for each in passes:
        for name, value in each.backward(model, trained, config, fixed):
            totals[name] += value
    return totals


def held_tokens(batch: Batch, config: EditConfig) -> Tensor:
    """The tokens at which L_r acts: bool (batch, tokens), see `EditConfig.retain_tokens`."""
    return token_mask(batch, config.retain_tokens if "labels" in batch else "all")


def _direction(pool: Pool, index: int, frozen: Tensor, config: EditConfig) -> Tensor:
    """Random directions for a batch with vanilla states `frozen`: one an input, or one for all."""
    if config.direction == "shared":
        return random_direction(frozen.shape[-1], pool.key[:1])
    seed = [*pool.key, index, pool.visits if config.redraw else 0]
    return random_direction(frozen.shape[-1], seed, len(frozen))


def _seen(model: nn.Module, trained: Overlay, batch: Batch, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """The edited model's hidden state (batch, tokens, hidden), and its answers' log-probability (batch,), 0 without labels."""
    with trained.on(), mixed_precision():
        if "labels" in batch:
            return hidden_state_and_logprob(model, batch, layer)
        state = hidden_state(model, batch, layer)
        return state, state.new_zeros(len(state))
