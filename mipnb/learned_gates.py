"""Gates learned by gradient: the set of neurons that, silenced together, takes the most from one set of questions and the
least from another.

Scores look along one straight way from silent to full activations, all neurons of a layer scaled alike. Where many
neurons can stand in for each other, no point of that way shows what silencing a *set* of them does, and adding up single
neurons' scores tells little of it. Here the set is searched as a whole: every neuron has a weight, each pass silences the
top k of every layer, and the gradient goes to the weights as if the choice were smooth (straight-through estimator,
Bengio et al. 2013; masks over frozen weights, Ramanujan et al. 2020 and Csordás et al. 2021). It takes some hundred forward
and backward passes, and what it gives is no attribution: weights say which set, not how much each neuron gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.answers import answer_value
from mipnb.batches import Batch, encode, patch_owner
from mipnb.benchmarks import Question
from mipnb.hooks import gated, undisturbed
from mipnb.training import optimize, shuffled

#: of the weights, which are logits of being silenced
LEARNING_RATE = 0.2
#: standard deviation of the weights at the start, so that their first order is a random one
_START = 0.05
_WARMUP = 10


def learn_gates(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int,
    steps: int = 200,
    batch_size: int = 32,
    seed: int = 42,
    device: str = "cpu",
) -> Tensor:
    """Search the neurons to silence: as little F = exp(mean log-probability of the answer) on forget, as much on retain.

    Args:
        model, processor: from `load_model`, `load_processor`; no weight of it changes.
        forget, retain: questions of one modality, to be lost and to be kept.
        branch: "text" or "vision".
        top_k: neurons of each layer that are silenced together.
        steps: of AdamW, each with a batch of either set.
        batch_size: questions of a batch; all of a set that has fewer.
        seed: of the first order and of the batches.
        device: of the model.

    Returns:
        Weights, float32 (layers, n_neurons), on the CPU: the higher the earlier a neuron is silenced.

    Raises:
        ValueError: a set without questions, or a top_k that leaves nothing to choose.
    """
    if empty := [name for name, part in (("forget", forget), ("retain", retain)) if not part]:
        raise ValueError(f"the {empty[0]} set has no questions; gates are learned on both sets")
    draws = [shuffled(part, min(batch_size, len(part)), seed) for part in (forget, retain)]
    encoded = (tuple(encode(processor, next(draw), device=device) for draw in draws) for _ in range(steps))
    return _learned(model, models.ffns(model, branch), branch, encoded, top_k, steps, seed)


def _learned(
    model: nn.Module,
    ffns: Sequence[models.FFN],
    branch: str,
    pairs: Iterator[tuple[Batch, Batch]],
    top_k: int,
    steps: int,
    seed: int,
) -> Tensor:
    """The same from encoded batches, a pair (forget, retain) a step."""
    n_neurons = ffns[0].n_neurons
    if not 0 < top_k < n_neurons:
        raise ValueError(
            f"top_k = {top_k}: expected 1 to {n_neurons - 1} of the {n_neurons} neurons of a layer"
        )
    weights = torch.randn(len(ffns), n_neurons, generator=torch.Generator().manual_seed(seed)) * _START
    weights.requires_grad_()

    def loss(step: int) -> Tensor:
        gates = 1 - _silenced(weights, top_k)
        left, kept = (_answered(model, ffns, branch, batch, gates) for batch in next(pairs))
        return left - kept

    with undisturbed(model):
        optimize([{"params": [weights], "lr": LEARNING_RATE}], loss, steps, min(_WARMUP, steps))
    return weights.detach()


def _silenced(weights: Tensor, top_k: int) -> Tensor:
    """1 for the top k of each layer, 0 for all others; the gradient is that of a sigmoid of the weights."""
    smooth = weights.sigmoid()
    hard = torch.zeros_like(smooth).scatter(1, weights.topk(top_k, dim=1).indices, 1.0)
    return hard + smooth - smooth.detach()


def _answered(
    model: nn.Module, ffns: Sequence[models.FFN], branch: str, batch: Batch, gates: Tensor
) -> Tensor:
    """Mean F of a batch, all of its samples under the same gates (layers, n_neurons)."""
    packed = branch == "vision" and "image_grid_thw" in batch
    each = [gate.expand(len(batch["labels"]), -1) for gate in gates.to(batch["labels"].device)]
    with gated(ffns, each, patch_owner(batch["image_grid_thw"]) if packed else None):
        return answer_value(model, batch, "probability").mean().cpu()
