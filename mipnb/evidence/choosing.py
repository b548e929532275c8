"""Choosing a recipe on validation people, whom no reported figure is about."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mipnb.evidence.cases import Case
from mipnb.evidence.controls import random_rankings
from mipnb.evidence.in_rounds import ranking_of
from mipnb.evidence.measures import NOTHING, branch_marks
from mipnb.evidence.recipes import PATCHED, Recipe, located_scores, size_of, sizes_of
from mipnb.evidence.trial import asked_of
from mipnb.evidence.verdicts import measure_table
from mipnb.ranking import RANKINGS


def recipes_for(branch: str, pictured: bool = False) -> list[Recipe]:
    """The recipes tried: rankings, then, with the retain set taken into account, one change at a time.

    Args:
        branch: "text" or "vision", whose positions are all of one kind.
        pictured: text branch: whether half of the neurons may come from questions with a picture, too.
    """
    rankings = [Recipe(ranking) for ranking in RANKINGS]
    people = [Recipe("contrast", aggregate) for aggregate in ("vote", "people_vote", "people_turns")]
    people += [Recipe(ranking, "people_turns") for ranking in ("ratio", "projected")]
    layers = [Recipe("contrast", weighted=True)]
    patched = [Recipe(ranking, positions=PATCHED) for ranking in RANKINGS]
    patched += [Recipe(ranking, "people_turns", PATCHED) for ranking in ("contrast", "projected")]
    patched += [
        Recipe("difference", positions=PATCHED, rounds=12, retain_weight=weight) for weight in (1, 2, 4, 8)
    ]
    if branch == "vision":
        return [*rankings, *people, *layers, *patched]
    places = [
        Recipe(ranking, positions=where)
        for ranking in ("contrast", "projected")
        for where in ("prompt", "answer")
    ]
    pictures = [Recipe("contrast", picture_share=0.5)] if pictured else []
    return [*rankings, *people, *layers, *patched, *places, *pictures]


def tried_marks(
    cases: Sequence[Case], branch: str, recipes: Sequence[Recipe], n_draws: int = 5, k: int | None = None
) -> pd.DataFrame:
    """Silence what each recipe picks, as many neurons for all, and random neurons.

    Args:
        cases: on validation people, of any number of models.
        branch: "text" or "vision".
        recipes: to try.
        n_draws: random draws beside them.
        k: neurons per layer; by default the run's.

    Returns:
        See `measures.branch_marks`; each recipe is a choice of its name, beside "random".
    """
    return pd.concat([_tried(case, branch, recipes, n_draws, k) for case in cases], ignore_index=True)


def tried_table(marks: pd.DataFrame, mark: str = "probability") -> pd.DataFrame:
    """What was tried, measured.

    Args:
        marks: from `tried_marks`.
        mark: "probability", which moves before any answer is lost, or "recall".

    Returns:
        One row a recipe and one for "random": recipe, then value, low, high of necessity, spared and ratio (columns
        "necessity", "necessity_low", "necessity_high", ...).
    """
    table = measure_table(marks, mark)
    wide = {}
    for row in table.itertuples():
        values = {row.measure: row.value, f"{row.measure}_low": row.low, f"{row.measure}_high": row.high}
        wide.setdefault(row.choice, {}).update(values)
    return pd.DataFrame(wide).T.rename_axis("recipe").reset_index()


def _tried(case: Case, branch: str, recipes: Sequence[Recipe], n_draws: int, k: int | None) -> pd.DataFrame:
    pictured = any(recipe.picture_share for recipe in recipes)
    located = located_scores(case, branch, pictured, {recipe.way for recipe in recipes})
    k, asked, ffns = k or size_of(case, branch), asked_of(case, branch), case.ffns(branch)
    tables, own = [], {"unit": case.unit, "known": case.shared}
    for recipe in recipes:
        ranked = ranking_of(case, branch, recipe, located, k, recipe.name)
        sizes = {k: sizes_of(case, branch, recipe, ranked, k)}
        tables.append(branch_marks(case.model, asked, ffns, branch, [ranked], sizes, **own))
    drawn = random_rankings(ranked.values, n_draws, case.params.seed)
    sizes = {k: sizes_of(case, branch, Recipe(), drawn[0], k)}
    tables.append(branch_marks(case.model, asked, ffns, branch, drawn, sizes, **own))
    first, *others = tables  # each begins with the untouched model, whose questions count once
    return pd.concat([first, *(table[table.choice != NOTHING] for table in others)], ignore_index=True)


def choose(recipes: Sequence[Recipe], tried: pd.DataFrame) -> Recipe:
    """The recipe whose ratio is the largest at the lower end of its interval.

    A recipe whose neurons do next to nothing has a quotient of two small numbers: large, perhaps, but never surely.

    Args:
        recipes: that were tried; of equal ones the first is taken.
        tried: from `tried_table`.
    """
    table = tried.set_index("recipe")
    return max(recipes, key=lambda recipe: table.ratio_low[recipe.name])
