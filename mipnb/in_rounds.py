"""Locating in rounds: scores are taken again and again, with the neurons chosen so far silenced, and added up.

Where neurons stand in for each other, or a sure answer hardly moves, the unscaled model's scores miss what a set of neurons
does together. Algorithm 1 takes a question's path so far along when it scores the next layer; here it is the whole set's choice
that is taken along, in all layers. Pruning knows this as iterative ranking of sensitivities (Verdenius et al. 2020; de Jorge et
al. 2021, who let what is silent come back, too).

A round's score of a neuron is dF/dgate, forget less retain, at gates 0 of the neurons chosen so far and 1 of all others: what
silencing it takes away, or, where it is silent, what it would give back, to first order. Scores are added up over the rounds,
and every round chooses anew by the sum, more and more neurons. So a neuron that costs the retain set much once it is silent
loses its place, and noise of single rounds averages out. As integrated gradients add up slopes along the straight way from
silent to full activations (Eq. 4), this adds them up along the way that the choice itself goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.attribution import MAX_ROWS
from mipnb.batches import Batch, encode
from mipnb.benchmarks import Question
from mipnb.budget import rows_within
from mipnb.hooks import undisturbed
from mipnb.learned_gates import answered_under, layer_sizes
from mipnb.memory import fitting
from mipnb.models import FFN
from mipnb.paths import NeuronPath
from mipnb.precision import float32_arithmetic
from mipnb.preconditions import check_batch, check_networks
from mipnb.probe import Probe
from mipnb.training import shuffled

#: questions of the forget and of the retain set that a round looks at; the next round looks at others
PER_ROUND = (128, 256)


def locate_in_rounds(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int | Sequence[int],
    *,
    rounds: int = 24,
    benchmark: str = "",
    seed: int = 42,
    **size,
) -> NeuronPath:
    """One path for a forget set: the neurons whose scores, added up over rounds, are the highest.

    Args:
        model, processor: from `load_model`, `load_processor`; no weight of it changes.
        forget, retain: questions of one modality, to be lost and to be kept; the more, the better the choice holds for
            questions that are not among them.
        branch: "text" or "vision".
        top_k: neurons of every layer, or of each layer by itself, that are silenced together.
        rounds: how often scores are taken; in the first half the choice grows, by equal parts.
        benchmark: what the questions are of; kept in the path.
        seed: of the questions' order.
        **size: per_round, batch_size, device, max_rows, memory_gb, see `scores_in_rounds`.

    Raises:
        ValueError: see `scores_in_rounds`.
    """
    at = (model, processor, forget, retain, branch, top_k)
    values = scores_in_rounds(*at, rounds=rounds, seed=seed, **size)
    sizes = layer_sizes(top_k, *values.shape)
    layers = tuple(tuple(sorted(_best(row, k).tolist())) for row, k in zip(values, sizes, strict=True))
    made = {"search": "in rounds", "rounds": rounds, "seed": seed}
    return NeuronPath(branch, layers, values.shape[1], models.fingerprint(model), benchmark, made)


def scores_in_rounds(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int | Sequence[int],
    *,
    rounds: int = 24,
    seed: int = 42,
    per_round: tuple[int, int] = PER_ROUND,
    batch_size: int = 32,
    device: str = "cpu",
    max_rows: int = MAX_ROWS,
    memory_gb: float | None = None,
) -> Tensor:
    """Mean over rounds of dF/dgate, forget less retain, F = exp(mean log-probability of the answer).

    Args:
        model, processor, forget, retain, branch, top_k, rounds, seed: see `locate_in_rounds`.
        per_round: questions of either set that a round looks at, at most; the next round looks at others.
        batch_size, device, max_rows, memory_gb: as for `locate`; scores do not depend on them. Where memory runs out, half
            as many questions go through the model at a time.

    Returns:
        float32 (layers, n_neurons).

    Raises:
        ValueError: rounds below 1, a top_k that does not fit, a set without questions, questions of both modalities, what
            `locate` refuses about questions and networks, gradients that are not finite or all 0.
    """
    sets = {"forget": forget, "retain": retain}
    _check_sets(sets)
    ffns = models.ffns(model, branch)
    check_networks(ffns)
    for part in sets.values():
        check_batch(model, encode(processor, part[:1], device=device), branch)
    sizes = layer_sizes(top_k, len(ffns), ffns[0].n_neurons)
    drawn = [
        shuffled(part, min(n, len(part)), seed) for n, part in zip(per_round, sets.values(), strict=True)
    ]

    def gradient(asked: Sequence[Question], gates: Tensor) -> Tensor:
        def within(n: int) -> Tensor:
            return answered_under(model, ffns, branch, _encoded(processor, asked, n, device), gates)[1]

        return fitting(within, rows, "questions")[0]

    def gained(gates: Tensor) -> Tensor:
        of_forget, of_retain = (gradient(next(draw), gates) for draw in drawn)
        return of_forget - of_retain

    with torch.enable_grad(), undisturbed(model), float32_arithmetic(model):
        rows = min(batch_size, max_rows)
        if memory_gb is not None:
            longest = encode(processor, [max((*forget, *retain), key=_length)], device=device)
            rows = min(rows, _rows_within(memory_gb, model, ffns, longest, branch))
        return add_up(sizes, ffns[0].n_neurons, rounds, gained)


def add_up(sizes: Sequence[int], n_neurons: int, rounds: int, gained: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over rounds of scores, each round's taken under gates that silence the best so far.

    Args:
        sizes: neurons of each layer that the last rounds silence together.
        n_neurons: of a layer.
        rounds: how many; the choice grows by equal parts until half of them are done, then keeps its size.
        gained: a round's scores of all neurons under its gates, both (layers, n_neurons); the first round's gates are all 1.

    Returns:
        float32 (layers, n_neurons).

    Raises:
        ValueError: fewer than one round, or scores that are not finite, or 0 for every neuron.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1")
    total, growing = torch.zeros(len(sizes), n_neurons), max(rounds // 2, 1)
    for number in range(rounds):
        gates = torch.ones_like(total)
        for row, values, size in zip(gates, total, sizes, strict=True):
            row[_best(values, size * min(number, growing) // growing)] = 0
        total += _usable(gained(gates), number)
    return total / rounds


def _best(values: Tensor, size: int) -> Tensor:
    """The highest of a layer, none if `size` is 0; ties by the lower index."""
    return values.sort(descending=True, stable=True).indices[:size]


def _usable(scores: Tensor, number: int) -> Tensor:
    if not scores.isfinite().all():
        raise ValueError(
            f"scores of round {number} are not finite: the model's answers are not; try another dtype"
        )
    if not scores.any():
        raise ValueError(
            f"every score of round {number} is 0: no gradient reaches the gates, or the model is surer of its answers than "
            "its numbers are fine"
        )
    return scores.cpu()


def _check_sets(sets: dict[str, Sequence[Question]]) -> None:
    if empty := [name for name, part in sets.items() if not part]:
        raise ValueError(f"the {empty[0]} set has no questions; rounds set the one set against the other")
    if len(kinds := {question.modality for part in sets.values() for question in part}) > 1:
        raise ValueError(
            f"rounds look at questions of one modality; these are {sorted(kinds)}: see `of_modality`"
        )


def _rows_within(memory_gb: float, model: nn.Module, ffns: Sequence[FFN], one: Batch, branch: str) -> int:
    """How many questions as long as one go through the model at a time."""
    packed = branch == "vision" and "image_grid_thw" in one
    return rows_within(memory_gb, Probe(model, ffns, one, "probability", packed, 1), 1)


def _encoded(processor, asked: Sequence[Question], rows: int, device: str) -> Iterator[Batch]:
    """Batches of like length."""
    asked = sorted(asked, key=_length)
    starts = range(0, len(asked), rows)
    return (encode(processor, asked[start : start + rows], device=device) for start in starts)


def _length(question: Question) -> int:
    return len(question.prompt + question.answer)
