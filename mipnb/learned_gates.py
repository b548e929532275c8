"""Gates learned by gradient: a set of neurons that, silenced together, takes much from one set of questions and little from
another.

Scores look along one straight way from silent to full activations, all neurons of a layer scaled alike, and are added up
neuron by neuron. Where neurons stand in for each other, what one of them does depends on which others are silent. Here the
choice itself is moved, a step at a time: every neuron has a weight, each pass silences those with the highest weights, and
the gradient at that choice goes to the weights as if it were smooth (straight-through estimator, Bengio et al. 2013; masks
over frozen weights, Ramanujan et al. 2020 and Csordas et al. 2021). What comes out is no attribution: the weights say which
set was found, not how much a neuron gives, and another seed or size finds another set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.answers import answer_value
from mipnb.batches import Batch, encode, patch_owner
from mipnb.benchmarks import Question
from mipnb.hooks import gated, undisturbed
from mipnb.paths import NeuronPath
from mipnb.precision import float32_arithmetic
from mipnb.preconditions import check_batch, check_networks, check_sets
from mipnb.training import optimize, shuffled

#: of the weights, which are logits of being silenced
LEARNING_RATE = 0.2
#: questions of either set that a step goes by
PER_STEP = 32
#: standard deviation of the weights at the start, so that the first order is a random one
_START = 0.05
_WARMUP = 10


def learn_path(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int | Sequence[int],
    *,
    steps: int = 150,
    batch_size: int = 32,
    seed: int = 42,
    device: str = "cpu",
    benchmark: str = "",
) -> NeuronPath:
    """The neurons that learned gates silence: F = exp(mean log-probability of the answer) low on forget, high on retain.

    Args:
        model, processor: from `load_model`, `load_processor`; no weight of it changes.
        forget, retain: questions of one modality, to be lost and to be kept.
        branch: "text" or "vision".
        top_k: neurons of every layer, or of each layer by itself, that are silenced together.
        steps: of AdamW, each by PER_STEP questions of either set, or all that there are.
        batch_size: questions that go through the model at a time; memory grows with it, the result does not depend on it.
        seed: of the first order and of the questions' order.
        device: of the model.
        benchmark: what the questions are of; kept in the path.

    Raises:
        ValueError: a set without questions, questions of both modalities, without answers or (vision) pictures, a top_k that
            does not fit, a quantised model, gradients of a set that are not finite or 0, in all layers or in some.
    """
    check_sets({"forget": forget, "retain": retain})
    for part in (forget, retain):
        check_batch(model, encode(processor, part[:1], device=device), branch)
    ffns = models.ffns(model, branch)
    check_networks(model, ffns)
    sizes = layer_sizes(top_k, len(ffns), ffns[0].n_neurons)
    pairs = _batches(processor, (forget, retain), steps, batch_size, seed, device)
    weights = _learned(model, ffns, branch, pairs, sizes, steps, seed)
    layers = tuple(tuple(sorted(row.topk(k).indices.tolist())) for row, k in zip(weights, sizes, strict=True))
    made = {"search": "learned gates", "steps": steps, "seed": seed}
    return NeuronPath(branch, layers, weights.shape[1], models.fingerprint(model), benchmark, made)


def layer_sizes(top_k: int | Sequence[int], layers: int, n_neurons: int) -> list[int]:
    """Neurons of each layer, from one number for all or one each; ValueError if a layer has not so many."""
    sizes = [top_k] * layers if isinstance(top_k, Integral) else list(top_k)
    if len(sizes) != layers or not all(0 <= size <= n_neurons for size in sizes):
        raise ValueError(f"top_k is {sizes}; expected {layers}, each from 0 to a layer's {n_neurons} neurons")
    return sizes


def _batches(
    processor, sets: Sequence[Sequence[Question]], steps: int, batch_size: int, seed: int, device: str
) -> Iterator[tuple[Iterator[Batch], ...]]:
    """For every step the encoded batches of each set."""
    draws = [shuffled(part, min(PER_STEP, len(part)), seed) for part in sets]

    def encoded(asked: Sequence[Question]) -> Iterator[Batch]:
        starts = range(0, len(asked), batch_size)
        return (encode(processor, asked[start : start + batch_size], device=device) for start in starts)

    return (tuple(encoded(next(draw)) for draw in draws) for _ in range(steps))


def _learned(
    model: nn.Module,
    ffns: Sequence[models.FFN],
    branch: str,
    pairs: Iterator[tuple[Iterable[Batch], Iterable[Batch]]],
    sizes: Sequence[int],
    steps: int,
    seed: int,
) -> Tensor:
    """Weights, float32 (layers, n_neurons): in each layer, the `sizes` highest are silenced.

    Args:
        model, branch, steps, seed: see `learn_path`.
        ffns: the branch's networks.
        pairs: for every step the batches of forget and those of retain.
        sizes: of each layer.
    """
    shape = (len(ffns), ffns[0].n_neurons)

    def loss(step: int) -> Tensor:
        gates = 1 - _silenced(weights, sizes)
        (left, down), (kept, up) = (answered_under(model, ffns, branch, part, gates) for part in next(pairs))
        if step == 0:
            _check_reached(branch, usable(down, "forget"), usable(up, "retain"))
        moved = (gates * (down - up)).sum()  # has the loss's gradient; its value is put right below
        return moved - moved.detach() + left - kept

    with gradients_alone(model):
        weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * _START
        weights.requires_grad_()
        optimize([{"params": [weights], "lr": LEARNING_RATE}], loss, steps, min(_WARMUP, steps))
    return weights.detach()


def usable(gradient: Tensor, name: str) -> Tensor:
    """A set's gradient in the gates, on the processor; ValueError if it is not finite, or 0 everywhere."""
    if not gradient.isfinite().all():
        raise ValueError(
            f"gradients of the {name} set are not finite: nor are the model's answers; try another dtype"
        )
    if not gradient.any():
        raise ValueError(
            f"every gradient of the {name} set is 0: the model is surer of these answers than its numbers are fine, or "
            "something in it cuts the graph (detach, no_grad, a module that passes no gradients on)"
        )
    return gradient.cpu()


def _check_reached(branch: str, *gradients: Tensor) -> None:
    """ValueError if some layers get no gradient from any set: which of their neurons come out would be chance."""
    blind = [
        layer for layer, rows in enumerate(zip(*gradients, strict=True)) if not any(map(Tensor.any, rows))
    ]
    if blind:
        raise ValueError(
            f"no gradient reaches {branch} layers {blind}: something in the model cuts the graph above them (no_grad, detach); "
            "gates cannot be learned there"
        )


def _silenced(weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """1 for the highest of each layer, 0 for all others; the gradient is that of a sigmoid of the weights."""
    smooth, hard = weights.sigmoid(), torch.zeros_like(weights)
    for layer, size in enumerate(sizes):
        hard[layer, weights[layer].topk(size).indices] = 1
    return hard + smooth - smooth.detach()


@contextmanager
def gradients_alone(model: nn.Module) -> Iterator[None]:
    """Gradients, whatever the caller's mode, but none of weights, which are left as they are, and sums in float32."""
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(model), float32_arithmetic(model):
        yield


def answered_under(
    model: nn.Module, ffns: Sequence[models.FFN], branch: str, batches: Iterable[Batch], gates: Tensor
) -> tuple[float, Tensor]:
    """Mean F of batches, all samples under the same gates, and its gradient in the gates.

    Args:
        model: in eval mode, its weights without gradients (`gradients_alone`).
        ffns, branch: the networks, and the branch whose they are.
        batches: encoded with answers.
        gates: of every sample, float32 (layers, n_neurons).

    Returns:
        F = exp(mean log-probability of the answer) and, like the gates, dF/dgate, 0 where something cuts the graph.
    """
    leaf, total, count = gates.detach().requires_grad_(), 0.0, 0
    for batch in batches:
        packed = branch == "vision" and "image_grid_thw" in batch
        each = [gate.expand(len(batch["labels"]), -1) for gate in leaf.to(batch["labels"].device)]
        with gated(ffns, each, patch_owner(batch["image_grid_thw"]) if packed else None):
            value = answer_value(model, batch, "probability").sum()
        if value.requires_grad:  # else something cuts the graph
            value.backward()
        total, count = total + value.item(), count + len(batch["labels"])
    return total / count, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad / count
