"""Edits on trial: any edit beside others, and edits with k neurons per layer, for several k."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random

import pandas as pd
from pydantic import BaseModel

from mipnb import trials
from mipnb.artefacts import under_root
from mipnb.benchmarks import Question, has_split, load_people, load_training, names_of
from mipnb.editing import edit
from mipnb.edits import Edit
from mipnb.evidence.cases import BRANCHES, Case
from mipnb.evidence.controls import random_rankings
from mipnb.evidence.in_rounds import ranking_of
from mipnb.evidence.measures import edit_marks
from mipnb.evidence.ranked import Ranked, even_sizes
from mipnb.evidence.recipes import Recipe
from mipnb.evidence.verdicts import MARKS, verdict_table
from mipnb.models import fingerprint
from mipnb.neighbours import neighbour_questions
from mipnb.paths import NeuronPath

#: (choice, draw, k) -> a path of each branch
Cuts = dict[tuple[str, int, int], list[NeuronPath]]


def edit_trial(case: Case, subject: Sequence[Edit], others: Mapping[str, Sequence[Edit]]) -> pd.DataFrame:
    """Put any edit through the trial: what it leaves of both sets, beside other edits of the same model.

    Args:
        case: model and questions.
        subject: the edit, one a seed.
        others: name of a control ("random") -> its edits, one a seed.

    Returns:
        `verdicts.verdict_table` by recall and by probability, measures `forgetting` and `retention`.
    """
    named = {"path": subject, **others}
    edits = {(name, draw, 1): one for name, group in named.items() for draw, one in enumerate(group)}
    marks = edit_marks(case.model, case.asked, edits, case.unit)
    return pd.concat([verdict_table(marks, "path", tuple(others), mark=mark) for mark in MARKS])


def edit_rankings(
    case: Case, recipes: Mapping[str, Recipe], k: int, n_draws: int = 1
) -> dict[str, list[Ranked]]:
    """What `cuts` is given: each branch's path by its recipe, then random draws.

    Args:
        case: model and questions.
        recipes: branch -> recipe.
        k: the most neurons per layer that are cut, which rounds choose together.
        n_draws: random draws, other ones for every case.
    """
    found, seed = {}, Random(f"{case.unit} {case.params.seed}").getrandbits(32)
    for branch, recipe in recipes.items():
        path = ranking_of(case, branch, recipe, k=k)
        found[branch] = [path, *random_rankings(path.values, n_draws, seed)]
    return found


def training_sets(
    root: str, people: Collection[str], params: BaseModel
) -> tuple[list[Question], list[Question], list[Question]]:
    """What an edit trains on: the training questions of the people to forget, of all others, and of names near the former.

    Args:
        root: the benchmark.
        people: IDs to forget.
        params: of the run.
    """
    rows = load_training(under_root(params.training_dir or root))
    forget, retain = ([q for q in rows if (q.person_id in people) == mine] for mine in (True, False))
    if not params.neighbour_batch:
        return forget, retain, []
    names = names_of(load_people(root, "Full_Set"))
    apart = [split for split in ("Retain_Set", "Holdout_Set") if has_split(root, split)]
    taken = [name for split in apart for name in names_of(load_people(root, split)).values()]
    known = [name for person, name in names.items() if person not in people]
    own = {person: names[person] for person in people}
    return forget, retain, neighbour_questions(forget, own, known, taken, params.seed)


def cuts(case: Case, rankings: Mapping[str, Sequence[Ranked]], steps: Sequence[int]) -> Cuts:
    """The paths of k neurons per layer of every choice, for several k.

    Args:
        case: its model is theirs.
        rankings: branch -> rankings; those of one choice and draw go together.
        steps: the k.
    """
    found: Cuts = {}
    for pair in zip(*(rankings[branch] for branch in BRANCHES), strict=True):
        for k in steps:
            paths = [_cut(case, branch, one, k) for branch, one in zip(BRANCHES, pair, strict=True)]
            found[pair[0].choice, pair[0].draw, k] = paths
    return found


def edits_of(
    case: Case,
    paths: Cuts,
    training: tuple[Sequence[Question], Sequence[Question], Sequence[Question]],
) -> pd.DataFrame:
    """Edit both branches along each pair of paths, and ask.

    Args:
        case: model and questions.
        paths: from `cuts`.
        training: forget, retain and neighbour questions to train on, see `trials.edit_batches`.

    Returns:
        See `measures.edit_marks`.
    """
    params = case.params.model_copy(update={"edit_steps": case.params.trial_edit_steps})
    batches = trials.edit_batches(case.processor, params, *training)
    config, states = trials.edit_config(params), {}
    edits = {
        key: edit(case.model, pair, *batches, config, params.seed, states=states)[0]
        for key, pair in paths.items()
    }
    return edit_marks(case.model, case.asked, edits, case.unit)


def _cut(case: Case, branch: str, ranked: Ranked, k: int) -> NeuronPath:
    sizes = even_sizes(k, *ranked.values.shape)
    return ranked.path(branch, sizes, fingerprint(case.model), case.params.benchmark_dir)
