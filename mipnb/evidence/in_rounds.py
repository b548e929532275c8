"""What a recipe makes of a case: its scores taken once, or in rounds."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from mipnb.evidence.cases import Case
from mipnb.evidence.ranked import Ranked
from mipnb.evidence.recipes import Located, Recipe, follow, located_scores, size_of
from mipnb.in_rounds import PER_ROUND, scores_in_rounds
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
        return Ranked(choice, _in_rounds(case, branch, recipe.rounds, k))
    if located is None:
        located = located_scores(case, branch, recipe.picture_share > 0, {recipe.way})
    return follow(recipe, located, k, choice)


def _in_rounds(case: Case, branch: str, rounds: int, k: int) -> Tensor:
    """Scores of rounds, (layers, n_neurons): once for the people of a case, who are other people to forget in another."""
    k = min(k, case.ffns(branch)[0].n_neurons)
    key = ("rounds", branch, rounds, k, case.people)
    make = partial(_scored, case, branch, rounds, k)
    return case.remembered(key, make) if case.people else make()


def _scored(case: Case, branch: str, rounds: int, k: int) -> Tensor:
    params, modality = case.params, case.modalities(branch)[0]
    sets = (of_modality(part, modality) for part in (case.forget, case.retain))
    most = (params.trial_locate_forget, params.trial_locate_retain)
    how = {"rounds": rounds, "seed": params.seed, "per_round": tuple(map(min, PER_ROUND, most))}
    how |= {"batch_size": params.batch_size, "device": params.device}
    return scores_in_rounds(case.model, case.processor, *sets, branch, k, **how)


def chosen_path(case: Case, recipe: Recipe, like: NeuronPath) -> NeuronPath:
    """The path that a recipe makes of another path's branch and sizes; `reuse_paths` takes it."""
    ranked = ranking_of(case, like.branch, recipe, k=max(like.sizes), choice=recipe.name)
    return ranked.path(like.branch, like.sizes, like.fingerprint, case.params.benchmark_dir)
