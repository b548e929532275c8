"""The trial itself: a path and its controls through all measures, case by case; edits at several k; any path or edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from mipnb.evidence.asked import Asked
from mipnb.evidence.cases import Case
from mipnb.evidence.controls import (
    largest_activation,
    lowest,
    manu,
    permuted_answers,
    random_rankings,
)
from mipnb.evidence.in_rounds import ranking_of
from mipnb.evidence.learned import gates_of
from mipnb.evidence.measures import branch_marks
from mipnb.evidence.ranked import Ranked, even_sizes, given
from mipnb.evidence.recipes import Recipe, size_of, sizes_of
from mipnb.evidence.verdicts import MARKS, verdict_table
from mipnb.paths import NeuronPath

#: choices of one draw that a path is held against, beside "random"
CONTROLS = ("run_recipe", "lowest", "activation", "manu", "first_token", "permuted_answers", "other_people")
#: choices of learned gates: those learned on what paths may be located on, and those on the very questions that are asked
LEARNED = {"learned": False, "seen": True}


def all_rankings(case: Case, branch: str, recipe: Recipe) -> list[Ranked]:
    """The path by a recipe and its controls: CONTROLS, then the random draws.

    Args:
        case: model and questions.
        branch: "text" or "vision".
        recipe: of the path; permuted_answers and other_people follow it, too, and first_token but for its rounds.
    """
    path = ranking_of(case, branch, recipe)
    return [path, lowest(path), *controls(case, branch, path), *_of_scores(case, branch, recipe)]


def controls(case: Case, branch: str, path: Ranked) -> list[Ranked]:
    """The controls that need no scores: activation, manu, random draws, of as many neurons as the path ranks."""
    forget, retain = (case.sums(branch, group) for group in ("forget", "retain"))
    drawn = random_rankings(path.values, case.params.trial_draws, case.params.seed)
    return [largest_activation(list(forget.values())), manu(forget, retain), *drawn]


def _of_scores(case: Case, branch: str, recipe: Recipe) -> list[Ranked]:
    """The controls that are made of scores.

    The recipe of the run, by the trial's search; then the path's own recipe: of the first position's scores alone, taken once,
    on questions with somebody else's answers, and on the questions about other people to forget.
    """
    params = case.params
    aggregate = "mean" if params.aggregate == "union" else params.aggregate  # a union is no ranking
    strange = replace(case, forget=permuted_answers(case.forget, params.seed))
    others = replace(case, forget=case.others)
    return [
        ranking_of(case, branch, Recipe(params.ranking, aggregate), choice="run_recipe"),
        ranking_of(case, branch, recipe.first_token, choice="first_token"),
        ranking_of(strange, branch, recipe, choice="permuted_answers"),
        ranking_of(others, branch, recipe, choice="other_people"),
    ]


def case_marks(
    case: Case, branch: str, recipe: Recipe, steps: Sequence[int] = (), n_curve_draws: int = 3
) -> pd.DataFrame:
    """One case's marks: every choice and learned gates at the path's size, and the main ones over many k.

    Args:
        case: model and questions.
        branch: "text" or "vision".
        recipe: of the path.
        steps: the k of the curves; none: no curves.
        n_curve_draws: random draws among the curves.

    Returns:
        See `measures.branch_marks`.
    """
    ranked, k = all_rankings(case, branch, recipe), size_of(case, branch)
    sizes = {k: sizes_of(case, branch, recipe, ranked[0], k)}
    means, asked = case.means(branch), asked_of(case, branch)
    at = (case.model, asked, case.ffns(branch), branch)
    own = (means, case.unit, case.shared)
    gates = [given(gates_of(case, branch, sizes[k], seen), name) for name, seen in LEARNED.items()]
    tables = [branch_marks(*at, [*ranked, *gates], sizes, *own)]
    if steps:
        main = [one for one in ranked if one.draw < n_curve_draws]
        others = {step: even_sizes(step, *main[0].values.shape) for step in steps if step != k}
        tables.append(branch_marks(*at, main, others, *own).query("choice != 'nothing'"))
    return pd.concat(tables, ignore_index=True)


def asked_of(case: Case, branch: str) -> Asked:
    """The questions that a branch is judged by."""
    return case.asked.only(modality=case.modalities(branch)[0])


def both_verdicts(
    marks: Mapping[str, pd.DataFrame], subject: str, controls: Sequence[str], sizes: Mapping[str, int]
) -> pd.DataFrame:
    """Verdicts on one choice in every branch, by recall and by probability.

    Args:
        marks: branch -> marks of all cases, from `case_marks`.
        subject: the choice on trial.
        controls: choices it is held against.
        sizes: branch -> neurons per layer.

    Returns:
        See `verdicts.verdict_table`, with columns branch and subject.
    """
    tables = [
        verdict_table(table, subject, controls, sizes[branch], mark).assign(branch=branch)
        for branch, table in marks.items()
        for mark in MARKS
    ]
    return pd.concat(tables, ignore_index=True).assign(subject=subject)


def path_trial(case: Case, path: NeuronPath) -> pd.DataFrame:
    """Put any path through the trial: one made elsewhere, from a file, or by hand.

    It is held against the controls that need no scores: random draws, largest activation and MANU, with its own number of
    neurons in every layer.

    Args:
        case: model and questions.
        path: of the case's model.

    Returns:
        `verdicts.verdict_table` by recall and by probability: a row a control and measure, with margin, interval and verdict.

    Raises:
        ValueError: a path of another model.
    """
    path.check(case.model)
    subject = given(path)
    others = controls(case, path.branch, subject)
    marks = branch_marks(
        case.model, asked_of(case, path.branch), case.ffns(path.branch), path.branch, [subject, *others],
        {max(path.sizes): path.sizes}, case.means(path.branch), case.unit,
    )  # fmt: skip
    others = ("random", "activation", "manu")
    return pd.concat([verdict_table(marks, "path", others, mark=mark) for mark in MARKS])
