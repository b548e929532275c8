"""Locating in rounds: scores are taken anew, again and again, with the neurons chosen so far silenced.

Where neurons stand in for each other, or a sure answer hardly moves, the unscaled model's scores miss what a set of neurons
does together. Algorithm 1 takes a question's path so far along when it scores the next layer; here it is the whole set's choice
that is taken along, in all layers. Pruning knows this as iterative ranking of sensitivities (Verdenius et al. 2020; de Jorge
et al. 2021).

A score is a slope at the full activation; silent, far from there, a neuron may cost the retain set much more. Often the slope
of the retain set's F is steep there, too: acting again the neuron would give much back. So before each round those silent
neurons are let go whose slope is above a bound, and others are taken in their places. (De Jorge et al. let silent weights come
back, too, where their gradient is large.) What two neurons cost only together, or a set whose loss is complete already, shows
in no such slope.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.attribution import MAX_ROWS
from mipnb.batches import encode
from mipnb.benchmarks import Question
from mipnb.budget import rows_within
from mipnb.hooks import undisturbed, zeroed
from mipnb.learned_gates import answered_under
from mipnb.locating import locate
from mipnb.memory import fitting
from mipnb.models import FFN
from mipnb.paths import NeuronPath
from mipnb.precision import float32_arithmetic
from mipnb.probe import Probe
from mipnb.ranking import AGGREGATES, RANKINGS, adjusted, aggregated
from mipnb.searches import top_neurons

#: one in so many of a set's questions is looked at in a round, others in the next one
PARTS = {"forget": 2, "retain": 4}
#: rounds after the last, at most, in which others take the places of neurons that were let go
EXTRA = 2
#: choices of `locate` that scores do not depend on
_SIZES = ("batch_size", "device", "max_rows", "memory_gb")


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

    Every round scores some of the questions, where there are enough others than the round before, with the neurons chosen so
    far silenced.

    Args:
        model, processor: from `load_model`, `load_processor`; no weight of it changes.
        forget, retain: questions of one modality, to be lost and to be kept.
        branch: "text" or "vision".
        top_k: neurons per layer that all rounds choose together.
        rounds: how often scores are taken; with a tolerance up to EXTRA times more.
        ranking: how scores are set against the retain set's, and
        aggregate: how they make one path, see `select`; not "union".
        tolerance: what a silenced neuron may at most give back to the retain set's mean F, a probability, were it to act
            again (to first order, see `given_back`); one that would give back more is let go. None lets none go.
        benchmark: what the questions are from; kept in the path.
        **choices: of `locate`, but for `resume`: rounds keep nothing; by default attribution patching: `search="gradient"`,
            `kind="igi"`.

    Raises:
        ValueError: rounds below 1, a top_k larger than a layer, an unknown ranking or aggregate, a union, a set without
            questions, questions of both modalities, `resume`, or what `locate` refuses.
    """
    _check(forget, retain, ranking, aggregate, choices)
    ffns = models.ffns(model, branch)
    how = {"search": "gradient", "kind": "igi", "top_k": 1, "completeness": False} | choices
    size = {name: choices[name] for name in _SIZES if name in choices}

    def ranked(number: int) -> Tensor:
        sets = [part_of_round(*named, number) for named in (("forget", forget), ("retain", retain))]
        mine, others = (locate(model, processor, part, branch, **how) for part in sets)
        return aggregated(adjusted(mine, others, ranking), mine.names, aggregate, top_k)

    def too_dear(number: int, chosen: Sequence[Sequence[int]]) -> Tensor:
        part = part_of_round("retain", retain, number)
        return given_back(model, processor, part, branch, chosen, **size) > tolerance

    order = rank_in_rounds(ffns, rounds, top_k, ranked, too_dear if tolerance is not None else None)
    layers = tuple(tuple(sorted(row.topk(top_k).indices.tolist())) for row in order)
    made = {name: value for name, value in how.items() if name not in _SIZES}
    made |= {
        "rounds": rounds,
        "ranking": ranking,
        "aggregate": aggregate,
        "path_top_k": top_k,
        "tolerance": tolerance,
    }
    return NeuronPath(branch, layers, ffns[0].n_neurons, models.fingerprint(model), benchmark, made)


def rank_in_rounds(
    ffns: Sequence[FFN],
    rounds: int,
    k: int,
    ranked: Callable[[int], Tensor],
    too_dear: Callable[[int, Sequence[Sequence[int]]], Tensor] | None = None,
) -> Tensor:
    """Neurons in the order in which rounds choose them, then all others as the last round ranks them, those let go last.

    Args:
        ffns: networks whose neurons are silenced.
        rounds: how many, at most k; each adds an equal part of the k to every layer.
        k: neurons per layer that all rounds choose together.
        ranked: what a round, by its number, gives every neuron while those chosen before are silent: (layers, n_neurons),
            the higher the earlier it is taken.
        too_dear: which of the neurons chosen before a round, given with its number, are let go: bool (layers, n_neurons).
            They are not taken again while their layer has others. Up to EXTRA rounds more put others in the places of those
            let go at the end; what the last one takes is not looked at again.

    Returns:
        Minus the place of each neuron, float32 (layers, n_neurons).

    Raises:
        ValueError: fewer than one round, or a k that no layer has.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1")
    top_neurons(torch.zeros(ffns[0].n_neurons), k)  # refuses a k that is too large
    rounds = min(rounds, max(k, 1))
    chosen: list[list[int]] = [[] for _ in ffns]
    gone: list[set[int]] = [set() for _ in ffns]
    for number in range(rounds + (EXTRA if too_dear else 0)):
        if too_dear and number:
            bad = [set(row.nonzero().flatten().tolist()) for row in too_dear(number, chosen)]
            gone = [old | (new & set(row)) for old, new, row in zip(gone, bad, chosen, strict=True)]
            chosen = [[n for n in row if n not in new] for row, new in zip(chosen, bad, strict=True)]
        if number >= rounds and all(len(row) == k for row in chosen):
            break
        with zeroed(ffns, chosen):
            values = ranked(number)
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
    max_rows: int = MAX_ROWS,
    memory_gb: float | None = None,
) -> Tensor:
    """What mean F of questions gets back, to first order, when one silenced neuron acts again and the others do not.

    Args:
        model, processor: from `load_model`, `load_processor`.
        questions: of one modality.
        branch: "text" or "vision".
        silenced: per layer of the branch, the neurons that do not act.
        batch_size, device, max_rows, memory_gb: as for `locate`; where memory runs out, half as many questions go through
            the model at a time.

    Returns:
        dF/dgate, at gates 0 of the silenced and 1 of all others: float32 (layers, n_neurons). F is a probability.
    """
    ffns = models.ffns(model, branch)

    def gradient(rows: int) -> Tensor:
        starts = range(0, len(questions), rows)
        batches = (encode(processor, questions[start : start + rows], device=device) for start in starts)
        return answered_under(model, ffns, branch, batches, _open_but(ffns, silenced))[1]

    with torch.enable_grad(), undisturbed(model), float32_arithmetic(model):
        most = min(batch_size, max_rows)
        if memory_gb is not None:
            longest = max(questions, key=lambda question: len(question.prompt + question.answer))
            one = encode(processor, [longest], device=device)
            packed = branch == "vision" and "image_grid_thw" in one
            most = min(most, rows_within(memory_gb, Probe(model, ffns, one, "probability", packed, 1), 1))
        return fitting(gradient, most, "questions")[0]


def _open_but(ffns: Sequence[FFN], silenced: Sequence[Sequence[int]]) -> Tensor:
    """Gates (layers, n_neurons): 0 of the silenced neurons, 1 of all others."""
    gates = torch.ones(len(ffns), ffns[0].n_neurons)
    for row, neurons in zip(gates, silenced, strict=True):
        row[list(neurons)] = 0
    return gates


def part_of_round(group: str, questions: Sequence[Question], number: int) -> Sequence[Question]:
    """The questions of a set, "forget" or "retain", that a round looks at, by its number."""
    parts = min(PARTS[group], len(questions)) or 1
    return questions[number % parts :: parts]


def _check(
    forget: Sequence[Question],
    retain: Sequence[Question],
    ranking: str,
    aggregate: str,
    choices: Mapping[str, Any],
) -> None:
    if ranking not in RANKINGS or aggregate not in AGGREGATES or aggregate == "union":
        known = [name for name in AGGREGATES if name != "union"]
        raise ValueError(f"ranking {ranking!r}, aggregate {aggregate!r}; rounds go by {RANKINGS} and {known}")
    if empty := [name for name, part in (("forget", forget), ("retain", retain)) if not part]:
        raise ValueError(f"the {empty[0]} set has no questions; rounds set the one set against the other")
    if len(kinds := {question.modality for question in [*forget, *retain]}) > 1:
        raise ValueError(
            f"rounds look at questions of one modality; these are {sorted(kinds)}: see `of_modality`"
        )
    if choices.get("resume") is not None:
        raise ValueError("rounds keep nothing between one call and the next: leave `resume` out")


def _in_order(values: Tensor, chosen: Sequence[int], gone: Collection[int]) -> list[int]:
    """A layer's neurons: those chosen, then all others, best first, those gone last."""
    others = _best(values, chosen)
    return [*chosen, *sorted(others, key=lambda neuron: neuron in gone)]


def _best(values: Tensor, taken: Sequence[int]) -> list[int]:
    """A layer's neurons that are not taken yet, best first."""
    known = set(taken)
    return [neuron for neuron in top_neurons(values, len(values)).tolist() if neuron not in known]


def _places(orders: Sequence[Sequence[int]]) -> Tensor:
    order = torch.tensor(orders)
    places = torch.arange(order.shape[1], dtype=torch.float32).expand(order.shape)
    return torch.zeros(order.shape).scatter(1, order, -places)
