"""Locating in rounds: scores are taken again and again, with the neurons chosen so far silenced, and added up.

Where neurons stand in for each other, or a sure answer hardly moves, the unscaled model's scores miss what a set of neurons
does together. Algorithm 1 takes a question's path so far along when it scores the next layer; here it is the whole set's choice
that is taken along, in all layers. Pruning knows this as iterative ranking of sensitivities (Verdenius et al. 2020; de Jorge et
al. 2021, who let what is silent come back, too).

A round's score of a neuron is dF/dgate, forget less retain (by a weight of its own), at gates 0 of the neurons chosen so far
and 1 of all others: what silencing it takes away, or, where it is silent, what it would give back, to first order. Scores are
added up over the rounds, and every round chooses anew by the sum, more and more neurons. So a neuron that costs the retain set
much once it is silent loses its place, and noise of single rounds averages out. As integrated gradients add up slopes along
the straight way from silent to full activations (Eq. 4), this adds them up along the way that the choice itself goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mipnb import models
from mipnb.attribution import MAX_ROWS
from mipnb.batches import Batch, encode
from mipnb.benchmarks import Question
from mipnb.budget import rows_within
from mipnb.learned_gates import answered_under, gradients_alone, layer_sizes, usable
from mipnb.memory import fitting
from mipnb.paths import NeuronPath, warn_of_silent
from mipnb.preconditions import check_batch, check_device, check_networks, check_sets
from mipnb.probe import Probe
from mipnb.training import shuffled

#: questions of the forget and of the retain set that a round looks at
PER_ROUND = (128, 256)


def locate_in_rounds(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int | Sequence[int],
    *,
    rounds: int = 12,
    retain_weight: float = 1.0,
    per_round: tuple[int, int] = PER_ROUND,
    seed: int = 42,
    benchmark: str = "",
    **size: Any,
) -> NeuronPath:
    """One path for a forget set: the neurons whose scores, added up over rounds, are the highest.

    Args:
        model, processor: from `load_model`, `load_processor`; no weight of it changes.
        forget, retain: questions of one modality, to be lost and to be kept; the more, the better the choice holds for
            questions that are not among them.
        branch: "text" or "vision".
        top_k: neurons of every layer, or of each layer by itself, that are silenced together.
        rounds: how often scores are taken; in the first half the choice grows, by equal parts.
        retain_weight: what a point lost on the retain set weighs, 0 or more, where one lost on the forget set weighs 1.
        per_round: forget and retain questions that a round looks at, at most; others each time, as long as there are any.
        seed: of the questions' order.
        benchmark: what the questions are of; kept in the path.
        **size: batch_size, device, max_rows, memory_gb, see `scores_in_rounds`.

    Raises:
        ValueError: see `scores_in_rounds`.
    """
    at = (model, processor, forget, retain, branch, top_k)
    made = {"rounds": rounds, "retain_weight": retain_weight, "per_round": tuple(per_round), "seed": seed}
    values = scores_in_rounds(*at, **made, **size)
    sizes = layer_sizes(top_k, *values.shape)
    layers = tuple(tuple(sorted(_best(row, k).tolist())) for row, k in zip(values, sizes, strict=True))
    if silent := [layer for layer, row in enumerate(values) if not row.any()]:
        warn_of_silent(branch, silent)
    made |= {"search": "in rounds", "per_round": list(per_round)}
    return NeuronPath(branch, layers, values.shape[1], models.fingerprint(model), benchmark, made)


def scores_in_rounds(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int | Sequence[int],
    *,
    rounds: int = 12,
    retain_weight: float = 1.0,
    per_round: tuple[int, int] = PER_ROUND,
    seed: int = 42,
    batch_size: int = 32,
    device: str = "cpu",
    max_rows: int = MAX_ROWS,
    memory_gb: float | None = None,
) -> Tensor:
    """Mean over rounds of dF/dgate, forget less `retain_weight` x retain, F = exp(mean log-probability of the answer).

    Args:
        model, processor, forget, retain, branch, top_k, rounds, retain_weight, per_round, seed: see `locate_in_rounds`.
        batch_size, device, max_rows, memory_gb: as for `locate`; scores do not depend on them. Where memory runs out, half
            as many questions go through the model at a time from then on.

    Returns:
        float32 (layers, n_neurons).

    Raises:
        ValueError: numbers below 1, a weight below 0 or not finite, a top_k that does not fit, a set without questions,
            questions of both modalities, what `locate` refuses about questions and networks, gradients of a set that are not
            finite or all 0.
    """
    sets = {"forget": forget, "retain": retain}
    check_sets(sets)
    check_weight(retain_weight)
    check_device(device)
    _check_numbers(rounds=[rounds], per_round=per_round, batch_size=[batch_size], max_rows=[max_rows])
    ffns = models.ffns(model, branch)
    check_networks(model, ffns)
    sizes, rows = layer_sizes(top_k, len(ffns), ffns[0].n_neurons), min(batch_size, max_rows)
    draws = {
        name: shuffled(part, min(most, len(part)), seed)
        for (name, part), most in zip(sets.items(), per_round, strict=True)
    }

    def encoded(asked: Sequence[Question]) -> Batch:
        batch = encode(processor, asked, device=device)
        check_batch(model, batch, branch)
        return batch

    def gradient(name: str, gates: Tensor) -> Tensor:
        nonlocal rows
        asked = sorted(next(draws[name]), key=_size)

        def within(n: int) -> Tensor:
            batches = (encoded(asked[start : start + n]) for start in range(0, len(asked), n))
            return answered_under(model, ffns, branch, batches, gates)[1]

        found, rows = fitting(within, rows, "questions")
        return usable(found, name)

    with gradients_alone(model):
        if memory_gb is not None:
            most = [max((*forget, *retain), key=key) for key in (_size, lambda asked: _size(asked)[1])]
            largest = encoded(most)  # most pixels, most text
            packed = branch == "vision" and "image_grid_thw" in largest
            rows = min(rows, rows_within(memory_gb, Probe(model, ffns, largest, "probability", packed, 1), 1))
        return add_up(
            sizes,
            ffns[0].n_neurons,
            rounds,
            lambda gates: gradient("forget", gates) - retain_weight * gradient("retain", gates),
        )


def add_up(sizes: Sequence[int], n_neurons: int, rounds: int, gained: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over rounds of scores, each round's taken under gates that silence the best so far.

    Args:
        sizes: neurons of each layer that the last rounds silence together.
        n_neurons: of a layer.
        rounds: how many; the choice grows by equal parts until half of them are done, then keeps its size.
        gained: a round's scores of all neurons under its gates, both (layers, n_neurons); the first round's gates are all 1.

    Returns:
        float32 (layers, n_neurons).

    """
    total, growing = torch.zeros(len(sizes), n_neurons), max(rounds // 2, 1)
    for number in range(rounds):
        gates = torch.ones_like(total)
        for row, values, size in zip(gates, total, sizes, strict=True):
            row[_best(values, size * min(number, growing) // growing)] = 0
        total += gained(gates)
    return total / rounds


def _best(values: Tensor, size: int) -> Tensor:
    """The highest of a layer, ties by the lower index; none where no gradient has come to the layer: all values are 0."""
    if not values.any():
        return torch.zeros(0, dtype=torch.int64)
    return values.sort(descending=True, stable=True).indices[:size]


def check_weight(retain_weight: float) -> None:
    """ValueError unless it is a finite number, 0 or more."""
    if not 0 <= retain_weight < float("inf"):
        raise ValueError(f"retain_weight is {retain_weight}; expected a number, 0 or more")


def _check_numbers(**numbers: Sequence[int]) -> None:
    for name, values in numbers.items():
        expected = 2 if name == "per_round" else 1
        if len(values) != expected or min(values) < 1:
            raise ValueError(f"{name} is {list(values)}; rounds take {expected} of at least 1")


def _size(question: Question) -> tuple[int, int]:
    """What a question takes: its picture's pixels, then its text's characters."""
    if question.image is None:
        return 0, len(question.prompt + question.answer)
    with Image.open(BytesIO(question.image)) as picture:
        return picture.width * picture.height, len(question.prompt + question.answer)
