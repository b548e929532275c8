"""Locating in rounds: scores are taken anew, again and again, with the neurons chosen so far silenced.

Where neurons stand in for each other, or a sure answer hardly moves, the unscaled model's scores miss what a set of neurons
does together. Algorithm 1 takes a question's path so far along when it scores the next layer; here it is the whole set's choice
that is taken along, in all layers. Pruning knows this as iterative ranking of sensitivities (Verdenius et al. 2020; de Jorge
et al. 2021).

A score is a slope at the full activation; far from there, silent, a neuron may cost the retain set much more than its slope
said. Then the slope of the retain set's F at the silent neuron is steep: it would give much back. Such a neuron is let go for
good after the round that took it, and another is taken in its place. (De Jorge et al. let silent weights come back, too, where
their gradient is large.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.batches import encode
from mipnb.benchmarks import Question
from mipnb.hooks import undisturbed, zeroed
from mipnb.learned_gates import answered_under
from mipnb.locating import locate
from mipnb.models import FFN
from mipnb.paths import NeuronPath
from mipnb.precision import float32_arithmetic
from mipnb.ranking import adjusted, aggregated
from mipnb.searches import top_neurons

#: one in so many of a set's questions is looked at in a round, others in the next one
PARTS = {"forget": 2, "retain": 4}
#: rounds after the last, at most, in which others take the places of neurons that were let go
EXTRA = 2


def locate_in_rounds(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int,
    *,
    rounds: int = 8,
    ranking: str = "difference",
    aggregate: str = "mean",
    tolerance: float | None = 0.01,
    benchmark: str = "",
    **choices: Any,
) -> NeuronPath:
    """One path for a forget set, an equal part of its neurons a round.

    Every round scores some of the questions, others than the round before, with the neurons chosen so far silenced.

    Args:
        model, processor: from `load_model`, `load_processor`; no weight of it changes.
        forget, retain: questions of one modality, to be lost and to be kept.
        branch: "text" or "vision".
        top_k: neurons per layer that all rounds choose together.
        rounds: how often scores are taken.
        ranking: how scores are set against the retain set's, and
        aggregate: how they make one path, see `select`; not "union".
        tolerance: what a silenced neuron may give back to the retain set's F, a probability, at most, were it to act again
            (to first order); one that would give back more is let go. None lets none go.
        benchmark: what the questions are from; kept in the path.
        **choices: of `locate`; by default attribution patching: `search="gradient"`, `kind="igi"`.

    Raises:
        ValueError: rounds below 1, a top_k larger than a layer, a union, or what `locate` refuses.
    """
    if aggregate == "union":
        raise ValueError("aggregate 'union' makes no ranking that rounds could choose by: take any other")
    ffns = models.ffns(model, branch)
    how = {"search": "gradient", "kind": "igi", "top_k": 1, "completeness": False} | choices
    size = {name: choices[name] for name in ("batch_size", "device") if name in choices}

    def ranked(number: int) -> Tensor:
        sets = [part_of_round(*named, number) for named in (("forget", forget), ("retain", retain))]
        mine, others = (locate(model, processor, part, branch, **how) for part in sets)
        return aggregated(adjusted(mine, others, ranking), mine.names, aggregate, top_k)

    def too_dear(number: int, chosen: Sequence[Sequence[int]]) -> Tensor:
        part = part_of_round("retain", retain, number)
        return given_back(model, processor, part, branch, chosen, **size) > tolerance

    order = rank_in_rounds(ffns, rounds, top_k, ranked, too_dear if tolerance is not None else None)
    layers = tuple(tuple(sorted(row.topk(top_k).indices.tolist())) for row in order)
    made = how | {"rounds": rounds, "ranking": ranking, "aggregate": aggregate, "path_top_k": top_k}
    made |= {"tolerance": tolerance}
    return NeuronPath(branch, layers, ffns[0].n_neurons, models.fingerprint(model), benchmark, made)


def rank_in_rounds(
    ffns: Sequence[FFN],
    rounds: int,
    k: int,
    ranked: Callable[[int], Tensor],
    too_dear: Callable[[int, Sequence[Sequence[int]]], Tensor] | None = None,
) -> Tensor:
    """Neurons in the order in which rounds choose them, then all others as the last round ranks them, then those let go.

    Args:
        ffns: networks whose neurons are silenced.
        rounds: how many; each adds an equal part of the k to every layer.
        k: neurons per layer that all rounds choose together.
        ranked: what a round, by its number, gives every neuron while those chosen before are silent: (layers, n_neurons),
            the higher the earlier it is taken.
        too_dear: which of the neurons chosen before a round, given with its number, are let go: bool (layers, n_neurons).
            Then up to EXTRA rounds more put others in their places; those that the last one takes are not looked at again.

    Returns:
        Minus the place of each neuron, float32 (layers, n_neurons).

    Raises:
        ValueError: fewer than one round, or a k that no layer has.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1")
    chosen: list[list[int]] = [[] for _ in ffns]
    gone: list[list[int]] = [[] for _ in ffns]
    for number in range(rounds + (EXTRA if too_dear else 0)):
        if too_dear and number:
            chosen, gone = _without(chosen, gone, too_dear(number, chosen))
        if number >= rounds and all(len(row) == k for row in chosen):
            break
        with zeroed(ffns, chosen):
            values = ranked(number)
        top_neurons(values, k)  # refuses a k that is too large
        orders = [_in_order(*layer) for layer in zip(values, chosen, gone, strict=True)]
        chosen = [order[: k * min(number + 1, rounds) // rounds] for order in orders]
    return _places(orders)


def given_back(
    model: nn.Module,
    processor,
    questions: Sequence[Question],
    branch: str,
    silenced: Sequence[Sequence[int]],
    batch_size: int = 32,
    device: str = "cpu",
) -> Tensor:
    """What mean F of questions gets back, to first order, when one silenced neuron acts again and the others do not.

    Args:
        model, processor: from `load_model`, `load_processor`.
        questions: of one modality.
        branch: "text" or "vision".
        silenced: per layer of the branch, the neurons that do not act.
        batch_size, device: as for `locate`.

    Returns:
        dF/dgate, at gates 0 of the silenced and 1 of all others: float32 (layers, n_neurons). F is a probability.
    """
    ffns = models.ffns(model, branch)
    gates = torch.ones(len(ffns), ffns[0].n_neurons)
    for row, neurons in zip(gates, silenced, strict=True):
        row[list(neurons)] = 0
    starts = range(0, len(questions), batch_size)
    batches = (encode(processor, questions[start : start + batch_size], device=device) for start in starts)
    with undisturbed(model), float32_arithmetic(model):
        return answered_under(model, ffns, branch, batches, gates)[1]


def part_of_round(group: str, questions: Sequence[Question], number: int) -> Sequence[Question]:
    """The questions of a set, "forget" or "retain", that a round looks at, by its number."""
    parts = min(PARTS[group], len(questions)) or 1
    return questions[number % parts :: parts]


def _without(
    chosen: Sequence[Sequence[int]], gone: Sequence[Sequence[int]], bad: Tensor
) -> tuple[list[list[int]], list[list[int]]]:
    """Neurons chosen less those that are bad, and those gone so far with them, each once."""
    kept = [[n for n in row if not flags[n]] for row, flags in zip(chosen, bad, strict=True)]
    lost = [[n for n in row if flags[n]] for row, flags in zip(chosen, bad, strict=True)]
    return kept, [list(dict.fromkeys([*old, *new])) for old, new in zip(gone, lost, strict=True)]


def _in_order(values: Tensor, chosen: Sequence[int], gone: Sequence[int]) -> list[int]:
    """A layer's neurons: those chosen, all others, best first, and at the end those gone that were not chosen again."""
    best = _best(values, [*chosen, *gone])
    return [*chosen, *best, *(neuron for neuron in gone if neuron not in chosen)]


def _best(values: Tensor, taken: Sequence[int]) -> list[int]:
    """A layer's neurons that are not taken yet, best first."""
    known = set(taken)
    return [neuron for neuron in top_neurons(values, len(values)).tolist() if neuron not in known]


def _places(orders: Sequence[Sequence[int]]) -> Tensor:
    order = torch.tensor(orders)
    places = torch.arange(order.shape[1], dtype=torch.float32).expand(order.shape)
    return torch.zeros(order.shape).scatter(1, order, -places)
