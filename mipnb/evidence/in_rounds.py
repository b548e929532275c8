"""Locating in rounds: scores are taken anew, again and again, with the neurons chosen so far silenced.

Where neurons stand in for each other, or a sure answer hardly moves, the unscaled model's scores miss what a set of neurons
does together. Algorithm 1 takes a question's path so far along when it scores the next layer; here it is the whole set's choice
that is taken along, in all layers. Pruning knows this as iterative ranking of sensitivities (Verdenius et al. 2020; de Jorge
et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mipnb.evidence.cases import Case
from mipnb.evidence.ranked import Ranked
from mipnb.evidence.recipes import Located, Recipe, follow, located_scores, scores_of, size_of
from mipnb.hooks import zeroed
from mipnb.locating import of_modality
from mipnb.paths import NeuronPath
from mipnb.scores import Scores
from mipnb.searches import top_neurons

#: one in so many of a set's questions is looked at in a round, others in the next one
PARTS = {"forget": 2, "retain": 4}


def ranking_of(
    case: Case,
    branch: str,
    recipe: Recipe,
    located: Located | None = None,
    k: int | None = None,
    choice: str = "path",
) -> Ranked:
    """The ranking that a recipe makes of a case's questions.

    Args:
        case: model and questions.
        branch: "text" or "vision".
        recipe: what to do.
        located: scores of the untouched model, if they are there already.
        k: neurons per layer that all rounds choose together, and that people vote for; by default the trial's.
        choice: name of the ranking.
    """
    k = size_of(case, branch) if k is None else k
    if recipe.rounds > 1:
        return Ranked(choice, in_rounds(case, branch, recipe, k))
    if located is None:
        located = located_scores(case, branch, recipe.picture_share > 0, {recipe.way})
    return follow(recipe, located, k, choice)


def in_rounds(case: Case, branch: str, recipe: Recipe, k: int) -> Tensor:
    """Neurons in the order in which rounds choose them, then all others as the last round ranks them.

    Every round adds an equal part of the k to every layer, the best by the recipe's scores of some of the questions.

    Args:
        case: model and questions.
        branch: "text" or "vision".
        recipe: how scores are made and put together; its `rounds`.
        k: neurons per layer that all rounds choose together; at most all of a layer.

    Returns:
        Minus the place of each neuron, float32 (layers, n_neurons).
    """
    ffns, modality = case.ffns(branch), case.modalities(branch)[0]
    chosen: list[list[int]] = [[] for _ in ffns]
    k = min(k, ffns[0].n_neurons)
    for number in range(recipe.rounds):
        with zeroed(ffns, chosen):
            located = {modality: _scored(case, branch, modality, recipe, number)}
        ranked = follow(recipe, located, k)
        size = k * (number + 1) // recipe.rounds
        chosen = [[*old, *_best(row, old)][:size] for row, old in zip(ranked.values, chosen, strict=True)]
    return _places([[*old, *_best(row, old)] for row, old in zip(ranked.values, chosen, strict=True)])


def _scored(
    case: Case, branch: str, modality: str, recipe: Recipe, number: int
) -> Mapping[str, Mapping[str, Scores]]:
    """Set -> positions -> scores of this round's questions."""
    found = {}
    for group, questions in (("forget", case.forget), ("retain", case.retain)):
        mine = of_modality(questions, modality)
        parts = min(PARTS[group], len(mine))
        found[group] = scores_of(case, mine[number % parts :: parts], branch, modality, {recipe.way})
    return found


def _best(values: Tensor, taken: Sequence[int]) -> list[int]:
    """A layer's neurons that are not taken yet, best first."""
    known = set(taken)
    return [neuron for neuron in top_neurons(values, len(values)).tolist() if neuron not in known]


def _places(orders: Sequence[Sequence[int]]) -> Tensor:
    order = torch.tensor(orders)
    places = torch.arange(order.shape[1], dtype=torch.float32).expand(order.shape)
    return torch.zeros(order.shape).scatter(1, order, -places)


def chosen_path(case: Case, recipe: Recipe, like: NeuronPath) -> NeuronPath:
    """The path that a recipe makes of another path's branch and sizes; `reuse_paths` takes it."""
    ranked = ranking_of(case, like.branch, recipe, k=max(like.sizes), choice=recipe.name)
    return ranked.path(like.branch, like.sizes, like.fingerprint, case.params.benchmark_dir)
