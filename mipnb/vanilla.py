"""What a vanilla model must be before anything is located in it: it knows, it looks, and its FFNs carry what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import nn

from mipnb.benchmarks import Question, evaluation_questions
from mipnb.evaluation import evaluate, score
from mipnb.hooks import zeroed
from mipnb.models import ffns

LABELS = {
    "run": "vanilla",
    "model": "vanilla",
    "benchmark": "",
    "method": "vanilla",
    "forget_ratio": 0,
    "seed": 0,
}


CHANCE = 0.25  # four options


def bars(results: pd.DataFrame) -> pd.DataFrame:
    """Every demand on the vanilla model beside what was measured, as far as the benchmark asks for it.

    Args:
        results: from `ask_vanilla`.

    Returns:
        One row a demand: demand, split, task, metric, measured, bound (">= 0.98"), met.
    """
    cell = results.set_index(["split", "task", "metric"])
    rows = [
        (what, split, task, metric, cell.value[split, task, metric], least, most)
        for what, splits, tasks, metric, least, most in _DEMANDS
        for split in splits
        for task in tasks
        if (split, task, metric) in cell.index
    ]
    rows += [
        (f"lost without {branch} FFNs", "retain", task, "accuracy",
         cell.value["retain", task, "accuracy"] - cell.value[f"no {branch} FFN", task, "accuracy"], 0.40, None)
        for branch, task in (("vision", "VQA"), ("text", "QA"))
        if ("retain", task, "accuracy") in cell.index
    ]  # fmt: skip
    rows += [
        ("unknown people: chance lies in the interval or above", "holdout", task, "accuracy",
         cell.low["holdout", task, "accuracy"], None, CHANCE)
        for task in ("VQA", "QA")
        if ("holdout", task, "accuracy") in cell.index
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["demand", "split", "task", "metric", "measured", "least", "most"])
    met = (table.measured >= table.least.fillna(0)) & (table.measured <= table.most.fillna(1))
    bound = [
        f">= {least:.2f}" if pd.isna(most) else f"<= {most:.2f}"
        for least, most in zip(table.least, table.most, strict=False)
    ]
    return table.drop(columns=["least", "most"]).assign(bound=bound, met=met)


#: demand, splits, tasks, metric, least, most
_DEMANDS = (
    ("knows", ("forget", "retain", "celebrity"), ("VQA", "QA"), "accuracy", 0.98, None),
    ("knows", ("forget", "retain", "celebrity"), ("VGEN", "GEN"), "rougeL", 0.95, None),
    ("unseen view and phrasing", ("test_forget", "test_retain"), ("VQA",), "accuracy", 0.90, None),
    ("unseen phrasing", ("test_forget", "test_retain"), ("QA",), "accuracy", 0.90, None),
    ("another person's portrait", ("swapped",), ("VGEN",), "value_recall", None, 0.15),
)


def ask_vanilla(
    model: nn.Module,
    processor,
    root: str | Path,
    forget_ratio: int,
    n_people: int,
    seed: int,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Ask the vanilla model everything that the bars look at.

    Args:
        model, processor: from `load_model`, `load_processor`.
        root: the benchmark.
        forget_ratio: percent; the forget people are all asked.
        n_people: how many retain people are asked, drawn by `seed`; test, swapped and holdout alike.

    Returns:
        Tidy results. Splits beside the usual: `swapped` (somebody else's portrait), `no vision FFN` and `no text FFN`
        (every neuron of that branch at zero).
    """
    asked = evaluation_questions(root, forget_ratio, n_people, seed)
    asked["swapped"] = swap_portraits(asked["retain"])
    answers = [evaluate(model, processor, asked, batch_size)]
    group = [question for question in asked["retain"] if question.task in ("VQA", "QA")]
    for branch in ("vision", "text"):
        with zeroed(ffns(model, branch)):
            answers.append(evaluate(model, processor, {f"no {branch} FFN": group}, batch_size))
    return score(pd.concat(answers, ignore_index=True), **LABELS)


def swap_portraits(asked: Sequence[Question]) -> list[Question]:
    """The image questions again, each person's asked with the next person's portrait."""
    pictured = [question for question in asked if question.image is not None]
    portraits = {question.person_id: question.image for question in pictured}
    names = list(portraits)
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return [replace(question, image=portraits[following[question.person_id]]) for question in pictured]
