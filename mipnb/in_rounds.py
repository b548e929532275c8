"""Locating in rounds: scores are taken anew, again and again, with the neurons chosen so far silenced.

Where neurons stand in for each other, or a sure answer hardly moves, the unscaled model's scores miss what a set of neurons
does together. Algorithm 1 takes a question's path so far along when it scores the next layer; here it is the whole set's choice
that is taken along, in all layers. Pruning knows this as iterative ranking of sensitivities (Verdenius et al. 2020; de Jorge
et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.benchmarks import Question
from mipnb.hooks import zeroed
from mipnb.locating import locate
from mipnb.models import FFN
from mipnb.paths import NeuronPath
from mipnb.ranking import adjusted, aggregated
from mipnb.searches import top_neurons

#: one in so many of a set's questions is looked at in a round, others in the next one
PARTS = {"forget": 2, "retain": 4}


def locate_in_rounds(
    model: nn.Module,
    processor,
    forget: Sequence[Question],
    retain: Sequence[Question],
    branch: str,
    top_k: int,
    *,
    rounds: int = 8,
    ranking: str = "contrast",
    aggregate: str = "people_turns",
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
        benchmark: what the questions are from; kept in the path.
        **choices: of `locate`; by default attribution patching: `search="gradient"`, `kind="igi"`.

    Raises:
        ValueError: rounds below 1, a top_k larger than a layer, a union, or what `locate` refuses.
    """
    if aggregate == "union":
        raise ValueError("aggregate 'union' makes no ranking that rounds could choose by: take any other")
    ffns = models.ffns(model, branch)
    how = {"search": "gradient", "kind": "igi", "top_k": 1, "completeness": False} | choices

    def ranked(number: int) -> Tensor:
        sets = [part_of_round(*named, number) for named in (("forget", forget), ("retain", retain))]
        mine, others = (locate(model, processor, part, branch, **how) for part in sets)
        return aggregated(adjusted(mine, others, ranking), mine.names, aggregate, top_k)

    order = rank_in_rounds(ffns, rounds, top_k, ranked)
    layers = tuple(tuple(sorted(row.topk(top_k).indices.tolist())) for row in order)
    made = how | {"rounds": rounds, "ranking": ranking, "aggregate": aggregate, "path_top_k": top_k}
    return NeuronPath(branch, layers, ffns[0].n_neurons, models.fingerprint(model), benchmark, made)


def rank_in_rounds(ffns: Sequence[FFN], rounds: int, k: int, ranked: Callable[[int], Tensor]) -> Tensor:
    """Neurons in the order in which rounds choose them, then all others as the last round ranks them.

    Args:
        ffns: networks whose neurons are silenced.
        rounds: how many; each adds an equal part of the k to every layer.
        k: neurons per layer that all rounds choose together.
        ranked: what a round, by its number, gives every neuron while those chosen before are silent: (layers, n_neurons),
            the higher the earlier it is taken.

    Returns:
        Minus the place of each neuron, float32 (layers, n_neurons).

    Raises:
        ValueError: fewer than one round, or a k that no layer has.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1")
    chosen: list[list[int]] = [[] for _ in ffns]
    for number in range(rounds):
        with zeroed(ffns, chosen):
            values = ranked(number)
        top_neurons(values, k)  # refuses a k that is too large
        size = k * (number + 1) // rounds
        orders = [[*old, *_best(row, old)] for row, old in zip(values, chosen, strict=True)]
        chosen = [order[:size] for order in orders]
    return _places(orders)


def part_of_round(group: str, questions: Sequence[Question], number: int) -> Sequence[Question]:
    """The questions of a set, "forget" or "retain", that a round looks at, by its number."""
    parts = min(PARTS[group], len(questions)) or 1
    return questions[number % parts :: parts]


def _best(values: Tensor, taken: Sequence[int]) -> list[int]:
    """A layer's neurons that are not taken yet, best first."""
    known = set(taken)
    return [neuron for neuron in top_neurons(values, len(values)).tolist() if neuron not in known]


def _places(orders: Sequence[Sequence[int]]) -> Tensor:
    order = torch.tensor(orders)
    places = torch.arange(order.shape[1], dtype=torch.float32).expand(order.shape)
    return torch.zeros(order.shape).scatter(1, order, -places)
