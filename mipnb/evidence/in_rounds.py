"""What a recipe makes of a case: its scores taken once, or in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from mipnb.evidence.cases import Case
from mipnb.evidence.ranked import Ranked
from mipnb.evidence.recipes import Located, Recipe, follow, located_scores, size_of
from mipnb.in_rounds import PER_ROUND, scores_in_rounds
from mipnb.learned_gates import layer_sizes
from mipnb.locating import of_modality
from mipnb.partial import questions_digest
from mipnb.paths import NeuronPath


def ranking_of(
    case: Case,
    branch: str,
    recipe: Recipe,
    located: Located | None = None,
    k: int | Sequence[int] | None = None,
    choice: str = "path",
) -> Ranked:
    """The ranking that a recipe makes of a case's questions.

    Args:
        case: model and questions.
        branch: "text" or "vision".
        recipe: what to do.
        located: scores of the untouched model, if they are there already.
        k: neurons of every layer, or of each by itself, that all rounds choose together; people vote for the most of them. By
            default the trial's.
        choice: name of the ranking.
    """
    k = size_of(case, branch) if k is None else k
    if recipe.rounds > 1:
        return Ranked(choice, _in_rounds(case, branch, recipe, k))
    if located is None:
        located = located_scores(case, branch, recipe.picture_share > 0, {recipe.way})
    return follow(recipe, located, k if isinstance(k, int) else max(k), choice)


def _in_rounds(case: Case, branch: str, recipe: Recipe, k: int | Sequence[int]) -> Tensor:
    """Scores of rounds, (layers, n_neurons), once for the same questions: one case's are another one's other people's."""
    params, modality = case.params, case.modalities(branch)[0]
    sets = [of_modality(part, modality) for part in (case.forget, case.retain)]
    at_once = (len(of_modality(case.at_once(group), modality)) for group in ("forget", "retain"))
    how = {"rounds": recipe.rounds, "retain_weight": recipe.retain_weight, "seed": params.seed}
    how |= {"per_round": tuple(map(min, PER_ROUND, at_once))}
    layers, n_neurons = len(case.ffns(branch)), case.ffns(branch)[0].n_neurons
    sizes = layer_sizes(min(k, n_neurons) if isinstance(k, int) else k, layers, n_neurons)
    key = ("rounds", branch, *sizes, *how.values(), *map(questions_digest, sets))
    at = (case.model, case.processor, *sets, branch, sizes)
    how |= {"batch_size": params.batch_size, "device": params.device}
    return case.remembered(key, partial(scores_in_rounds, *at, **how))


def chosen_path(case: Case, recipe: Recipe, like: NeuronPath) -> NeuronPath:
    """The path that a recipe makes of another path's branch and sizes; `reuse_paths` takes it."""
    ranked = ranking_of(case, like.branch, recipe, k=like.sizes, choice=recipe.name)
    return ranked.path(like.branch, like.sizes, like.fingerprint, case.params.benchmark_dir)
