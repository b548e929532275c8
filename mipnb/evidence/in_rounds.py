"""What a recipe makes of a case: its scores taken once, or in rounds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mipnb.evidence.cases import Case
from mipnb.evidence.ranked import Ranked
from mipnb.evidence.recipes import Located, Recipe, follow, located_scores, scores_of, size_of
from mipnb.in_rounds import given_back, part_of_round, rank_in_rounds
from mipnb.locating import of_modality
from mipnb.paths import NeuronPath


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
    """The ranking of a recipe with rounds: minus the place of each neuron, see `mipnb.in_rounds.rank_in_rounds`.

    Args:
        case: model and questions.
        branch: "text" or "vision".
        recipe: how scores are made and put together; its `rounds`.
        k: neurons per layer that all rounds choose together; at most all of a layer.
    """
    ffns, modality = case.ffns(branch), case.modalities(branch)[0]
    k = min(k, ffns[0].n_neurons)
    asked = {"forget": of_modality(case.forget, modality), "retain": of_modality(case.retain, modality)}

    def ranked(number: int) -> Tensor:
        parts = {group: part_of_round(group, questions, number) for group, questions in asked.items()}
        scores = {
            group: scores_of(case, part, branch, modality, {recipe.way}) for group, part in parts.items()
        }
        return follow(recipe, {modality: scores}, k).values

    def too_dear(number: int, chosen: Sequence[Sequence[int]]) -> Tensor:
        part = part_of_round("retain", asked["retain"], number)
        size = (case.params.batch_size, case.params.device)
        return given_back(case.model, case.processor, part, branch, chosen, *size) > recipe.tolerance

    return rank_in_rounds(ffns, recipe.rounds, k, ranked, too_dear if recipe.tolerance is not None else None)


def chosen_path(case: Case, recipe: Recipe, like: NeuronPath) -> NeuronPath:
    """The path that a recipe makes of another path's branch and sizes; `reuse_paths` takes it."""
    ranked = ranking_of(case, like.branch, recipe, k=max(like.sizes), choice=recipe.name)
    return ranked.path(like.branch, like.sizes, like.fingerprint, case.params.benchmark_dir)
