"""What notebook 05 asks and shows: one unseen view a person, tables of one kind of number, costs of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from mipnb.benchmarks import Question, benchmark_kind
from mipnb.evaluation import CELL, COUNTS, aggregate, compare
from mipnb.plotting import MAIN_METRIC, TASK_NAMES


def first_views(questions: Iterable[Question]) -> list[Question]:
    """The questions without those of a person's second and further pictures."""
    first: dict[str, bytes] = {}
    return [q for q in questions if q.image is None or first.setdefault(q.person_id, q.image) == q.image]


def one_view_each(asked: Mapping[str, Sequence[Question]], root: str | Path) -> dict[str, list[Question]]:
    """The questions of an evaluation without further views, to save time.

    Only Test_Set of MLLMU-Bench's form shows one person in several pictures for the same questions; CLEAR's and a user's
    own pictures each have questions of their own, and all of these stay.
    """
    several = benchmark_kind(root) == "mllmu"
    return {
        split: first_views(group) if several and split.startswith("test_") else list(group)
        for split, group in asked.items()
    }


def first_portraits(questions: Iterable[Question]) -> dict[str, bytes]:
    """Each person's first picture among the questions, by person."""
    found: dict[str, bytes] = {}
    for question in questions:
        if question.image is not None:
            found.setdefault(question.person_id, question.image)
    return found


def some_people(asked: Mapping[str, Iterable[Question]], counts: Mapping[str, int]) -> dict[str, str]:
    """The first so many people of some splits: person -> split."""
    chosen = {}
    for split, count in counts.items():
        people = list(dict.fromkeys(question.person_id for question in asked[split]))
        chosen |= dict.fromkeys(people[:count], split)
    return chosen


def change_table(results: pd.DataFrame) -> pd.DataFrame:
    """Forgetting rate on the forget splits, retention on the others: one row a method and split, a column a task.

    Main metrics, means over seeds, vanilla left out; `what` says which of the two a row holds.
    """
    table = compare(results)
    main = table.task.map(MAIN_METRIC) == table.metric
    table = table[main & (table.method != "vanilla") & (table.split != "holdout")].copy()
    forgotten = table.split.isin(("forget", "test_forget"))
    table["what"] = forgotten.map({True: "forgetting rate", False: "retention"})
    table["shown"] = table.forgetting_rate.where(forgotten, table.retention)
    table["task"] = table.task.replace(TASK_NAMES)
    return table.pivot_table(index=["what", "split", "method"], columns="task", values="shown", sort=False)


def with_interval(results: pd.DataFrame, splits: Iterable[str], methods: Iterable[str]) -> pd.DataFrame:
    """Means over seeds with 95 % interval as text, "0.25 [0.18, 0.33]": a row a cell, a column a method.

    Splits that the benchmark does not have are passed over.
    """
    means = aggregate(results[~results.metric.isin(COUNTS)])
    means = means[means.split.isin(list(splits)) & means.method.isin(list(methods))]
    text = [f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in means.itertuples(index=False)]
    wide = means.assign(text=text).pivot(index=CELL, columns="method", values="text")
    order = means[CELL].drop_duplicates().itertuples(index=False, name=None)
    return (
        wide.reindex(index=pd.MultiIndex.from_tuples(order, names=CELL), columns=list(methods))
        .droplevel("modality")
        .rename_axis(columns=None)
    )
