"""What notebook 05 asks, of which model, and how it is shown: one unseen view a person, tables of one kind of number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb.artefacts import stage_dir, under_root
from mipnb.benchmarks import Question, benchmark_kind, evaluation_questions
from mipnb.edits import Edit
from mipnb.evaluation import CELL, COUNTS, aggregate, compare, evaluate
from mipnb.likelihood import likelihood_marks
from mipnb.models import load_model, load_processor, run_model
from mipnb.params import subset
from mipnb.plotting import MAIN_METRIC
from mipnb.task_names import named_tasks
from mipnb.trials import load_edits


@dataclass(frozen=True, eq=False)
class Asker:
    """Asks the vanilla model of notebook 05, or an edit of it, here or in a helper (`lanes`).

    Attributes:
        params: of notebook 05.
        model, processor: vanilla.
        asked: split -> questions.
        edits: (method, seed) -> edit.
    """

    params: BaseModel
    model: nn.Module
    processor: Any
    asked: Mapping[str, Sequence[Question]]
    edits: Mapping[tuple[str, int], Edit]

    def __call__(self, which: tuple[str, int]) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
        """The answers (`evaluation.evaluate`); and by protocol "benchmark" also likelihoods, else an empty list.

        Args:
            which: a key of `edits`, or ("vanilla", seed). Both tables get its two columns: method, seed.
        """
        p, labels = self.params, dict(zip(("method", "seed"), which, strict=True))
        change = self.edits.get(which)
        with change.applied(self.model) if change else nullcontext():
            told = []
            if p.protocol == "benchmark":
                told.append(likelihood_marks(self.model, self.processor, self.asked).assign(**labels))
            at = (self.model, self.processor, self.asked, p.eval_batch_size, p.max_new_tokens)
            return evaluate(*at, resume=stage_dir(p.run_dir, "05_evaluation")).assign(**labels), told


def load_asker(values: Mapping[str, Any]) -> Asker:
    """An asker made from the values of notebook 05's parameters alone, as the notebook makes its own."""
    p = subset(values)
    vanilla = run_model(stage_dir(p.run_dir, "01_vanilla_model"))
    model = load_model(vanilla, p.dtype, p.device, device_map=p.device_map, attention=p.attention)
    every_view = evaluation_questions(
        under_root(p.benchmark_dir), p.forget_ratio, p.n_eval_retain, p.seed, p.protocol, p.n_shots
    )
    seeds = [p.seed + index for index in range(p.n_edit_seeds)]
    edits = load_edits(stage_dir(p.run_dir, "04_editing") / "edits", seeds, p.n_random_edits)
    return Asker(p, model, load_processor(vanilla), one_view_each(every_view, p.benchmark_dir), edits)


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


def views_told(whole: tuple[float, int], first: tuple[float, int]) -> str:
    """Why the vanilla model has two numbers on the unseen views of people to keep (VQA of test_retain), in a sentence.

    Args:
        whole: accuracy on all of them, 0 to 1, and the number of questions.
        first: the same on each person's first one.
    """
    (mean, n), (one, n_one) = whole, first
    if n == n_one:
        return f"Vanilla, VQA of test_retain: {mean:.3f} of {n} questions; every unseen view is asked here and in 01 alike."
    others = (mean * n - one * n_one) / (n - n_one)
    how = "less well" if others < one else "better" if others > one else "as well"
    return (
        f"Vanilla, VQA of test_retain: {mean:.3f} over all unseen views ({n} questions, 01_vanilla_model), {one:.3f} over the "
        f"first view of each person ({n_one}, 05_evaluation, which leaves the others out to save time). The same questions "
        f"are asked about each view, and the others are read {how}: {others:.3f}."
    )


def views_beside(
    results: pd.DataFrame, bars: pd.DataFrame, asked: Mapping[str, Sequence[Question]], same_way: bool = True
) -> str:
    """`views_told` for notebook 05.

    Args:
        results: its tidy table.
        bars: `bars.parquet` of notebook 01.
        asked: all questions of the evaluation, further views among them.
        same_way: whether notebook 05 asks by the prompts of 01, without solved examples.
    """
    if not same_way:
        return (
            "Vanilla's marks here and in 01_vanilla_model are of different prompts, and not to be compared."
        )
    cell = {"split": "test_retain", "task": "VQA", "metric": "accuracy"}
    here, there = (
        table[(table[list(cell)] == list(cell.values())).all(axis=1)]
        for table in (results[results.method == "vanilla"], bars)
    )
    if here.empty or there.empty:
        return "The benchmark shows no unseen views of people to keep."
    n = sum(question.task == "VQA" for question in asked["test_retain"])
    return views_told((there.measured.iloc[0], n), (here.value.iloc[0], int(here.n.iloc[0])))


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
    return named_tasks(table).pivot_table(
        index=["what", "split", "method"], columns="task", values="shown", sort=False
    )


def with_interval(results: pd.DataFrame, splits: Iterable[str], methods: Iterable[str]) -> pd.DataFrame:
    """Means over seeds with 95 % interval as text, "0.25 [0.18, 0.33]": a row a cell, a column a method.

    Splits that the benchmark does not have are passed over.
    """
    means = named_tasks(aggregate(results[~results.metric.isin(COUNTS)]))
    means = means[means.split.isin(list(splits)) & means.method.isin(list(methods))]
    text = [f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in means.itertuples(index=False)]
    wide = means.assign(text=text).pivot(index=CELL, columns="method", values="text")
    order = means[CELL].drop_duplicates().itertuples(index=False, name=None)
    return (
        wide.reindex(index=pd.MultiIndex.from_tuples(order, names=CELL), columns=list(methods))
        .droplevel("modality")
        .rename_axis(columns=None)
    )
