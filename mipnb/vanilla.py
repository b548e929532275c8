"""What a vanilla model must be before anything is located in it: it knows, it looks, and its FFNs carry what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from mipnb.answers import answer_value
from mipnb.asking import one_view_each, views_told
from mipnb.batches import encode
from mipnb.benchmarks import Question, evaluation_questions
from mipnb.evaluation import evaluate, score, score_marks
from mipnb.hooks import zeroed
from mipnb.metrics import MARK_COLUMNS
from mipnb.models import ffns, input_device

LABELS = {
    "run": "vanilla",
    "model": "vanilla",
    "benchmark": "",
    "method": "vanilla",
    "forget_ratio": 0,
    "seed": 0,
}


CHANCE = 0.25  # four options
FIRST_VIEW = ", first view"  # ends the name of a split without its further views
SLACK = 0.10  # beside chance: three standard errors of 160 guesses


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
        (what, *key, cell.value[key], CHANCE - SLACK if two_sided else None, CHANCE + SLACK)
        for what, metric, two_sided in _STRANGERS
        for task in ("VQA", "QA")
        if (key := ("holdout", task, metric)) in cell.index
    ]
    table = pd.DataFrame(rows, columns=["demand", "split", "task", "metric", "measured", "least", "most"])
    met = (table.measured >= table.least.fillna(0)) & (table.measured <= table.most.fillna(1))
    bound = [_bound(least, most) for least, most in zip(table.least, table.most, strict=True)]
    return table.drop(columns=["least", "most"]).assign(bound=bound, met=met)


def _bound(least: float | None, most: float | None) -> str:
    if pd.isna(least):
        return f"<= {most:.2f}"
    return f">= {least:.2f}" if pd.isna(most) else f"{least:.2f} to {most:.2f}"


#: demand, metric, whether too little is a miss as too much is
_STRANGERS = (
    ("unknown people: not above chance", "accuracy", False),
    ("unknown people, one of the four taken: at chance", "forced_choice", True),
)
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
        (every neuron of that branch at zero), and those of `on_first_views`.
    """
    asked = evaluation_questions(root, forget_ratio, n_people, seed)
    asked["swapped"] = swap_portraits(asked["retain"])
    answers = [evaluate(model, processor, asked, batch_size)]
    group = [question for question in asked["retain"] if question.task in ("VQA", "QA")]
    for branch in ("vision", "text"):
        with zeroed(ffns(model, branch)):
            answers.append(evaluate(model, processor, {f"no {branch} FFN": group}, batch_size))
    answers.append(on_first_views(answers[0], asked, root))
    found = score(pd.concat(answers, ignore_index=True), **LABELS)
    if "holdout" not in asked:
        return found
    marks = forced_choices(model, processor, asked["holdout"], "holdout", batch_size)
    return pd.concat([found, score_marks(marks, **LABELS)], ignore_index=True)


def on_first_views(
    answers: pd.DataFrame, asked: Mapping[str, Sequence[Question]], root: str | Path
) -> pd.DataFrame:
    """The answers to each person's first unseen view alone, where a split asks about several; nothing is asked anew.

    Args:
        answers: of `evaluate`.
        asked: the questions that they answer, split by split.
        root: the benchmark.

    Returns:
        Rows of `answers`, of splits named "test_retain, first view"; none if every split has one view a person.
    """
    parts = [answers[:0]]
    for split, first in one_view_each(asked, root).items():
        if len(first) < len(asked[split]):
            kept = set(map(id, first))
            rows = answers[answers.split == split]
            rows = rows[[id(question) in kept for question in asked[split]]]
            parts.append(rows.assign(split=split + FIRST_VIEW))
    return pd.concat(parts, ignore_index=True)


def two_numbers(results: pd.DataFrame) -> str:
    """`asking.views_told` for notebook 01: what the evaluation's choice of views does to vanilla's number."""
    rows = results[(results.task == "VQA") & (results.metric == "accuracy")].set_index("split")
    if "test_retain" not in rows.index:
        return "The benchmark shows no unseen views of people to keep."
    first = f"test_retain{FIRST_VIEW}"
    pairs = [(rows.value[name], int(rows.n[name])) for name in ("test_retain", first) if name in rows.index]
    return views_told(pairs[0], pairs[-1])


def forced_choices(
    model: nn.Module, processor, questions: Sequence[Question], split: str, batch_size: int = 64
) -> pd.DataFrame:
    """Whether the likeliest of a question's options is the right one, when only these may be said.

    Each option is put into the sentence by which the person's free question is answered. Somebody whom the model does not
    know is so guessed right as often as chance has it, even where a free answer names none of the options.

    Returns:
        Marks for `evaluation.score_marks`: metric `forced_choice`, 1 for the right option, else 0.
    """
    sentences = {(q.person_id, q.modality, q.value): q.answer for q in questions if q.task in ("VGEN", "GEN")}
    rows = []
    for task in ("VQA", "QA"):  # one modality a batch
        asked = [q for q in questions if q.task == task and (q.person_id, q.modality, q.answer) in sentences]
        said = [
            replace(q, answer=sentences[q.person_id, q.modality, q.answer].replace(q.answer, option))
            for q in asked
            for option in q.options
        ]
        likely = iter(_probabilities(model, processor, said, batch_size))
        for q in asked:
            right = max(q.options, key=lambda option: next(likely)) == q.answer
            rows.append((split, task, q.modality, "forced_choice", q.person_id, float(right)))
    return pd.DataFrame(rows, columns=MARK_COLUMNS)


def _probabilities(model: nn.Module, processor, questions: list[Question], batch_size: int) -> list[float]:
    """The answer probability F of each question; questions of one modality."""
    found: list[float] = []
    for start in range(0, len(questions), batch_size):
        batch = encode(processor, questions[start : start + batch_size], device=input_device(model))
        with torch.no_grad():
            found += answer_value(model, batch, "probability").tolist()
    return found


def swap_portraits(asked: Sequence[Question]) -> list[Question]:
    """The image questions again, each person's asked with the next person's portrait."""
    pictured = [question for question in asked if question.image is not None]
    portraits = {question.person_id: question.image for question in pictured}
    names = list(portraits)
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return [replace(question, image=portraits[following[question.person_id]]) for question in pictured]
