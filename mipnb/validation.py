"""Trials of a run's settings on validation people: located, edited and asked in memory, nothing written.

Settings are chosen by these trials, so that the people, views and phrasings that a run reports have no say in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from statistics import fmean

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb import trials
from mipnb.benchmarks import Question, draw_questions
from mipnb.editing import edit
from mipnb.edits import Edit
from mipnb.evaluation import evaluate, score
from mipnb.explore.ask import value_probability
from mipnb.generation import generate
from mipnb.locating import PAIRS, locate, of_modality
from mipnb.models import load_model, load_processor
from mipnb.neighbours import neighbour_questions
from mipnb.paths import NeuronPath, random_path, select
from mipnb.plotting import MAIN_METRIC
from mipnb.pocket.questions import WHO, named
from mipnb.pocket.validation import ValidationSets, validation_sets


def validate(params: BaseModel, trial: int, n_forget: int = 10) -> pd.DataFrame:
    """Locate, edit and ask the people of one trial.

    Args:
        params: of a run on the pocket benchmark; `model_dir` is the vanilla model.
        trial: seed of the trial's people.
        n_forget: people to forget.

    Returns:
        One row a method (vanilla, edited, random), split and task: trial, method, split, task, value (accuracy with
        options, recall of the value in free answers; what `betrayed` asks has rows of its own; 0 to 1).
    """
    model = load_model(params.model_dir, params.dtype, params.device)
    processor = load_processor(params.model_dir)
    sets = validation_sets(params.benchmark_dir, trial, n_forget=n_forget)
    located = located_paths(model, processor, sets, params)
    batches = trials.edit_batches(processor, params, sets.forget, sets.retain, neighbours(sets, params.seed))
    edits: dict[str, Edit | None] = {"vanilla": None}
    for method, paths in {
        "edited": located,
        "random": [random_path(p, params.seed) for p in located],
    }.items():
        edits[method], _ = edit(model, paths, *batches, trials.edit_config(params), params.seed)
    found = {
        method: pd.concat([asking(model, processor, sets, params, change) for asking in (ask, betrayed)])
        for method, change in edits.items()
    }
    return pd.concat(found, names=["method"]).reset_index("method").assign(trial=trial).reset_index(drop=True)


def located_paths(model: nn.Module, processor, sets: ValidationSets, params: BaseModel) -> list[NeuronPath]:
    """The text and the vision path of a trial, as notebooks 02 and 03 locate them."""
    choices = {name: getattr(params, name) for name in ("score", "search", "rule", "n_steps")}
    groups = (sets.forget, params.n_locate_forget), (sets.retain, params.n_locate_retain)
    drawn = [draw_questions(questions, count, params.seed) for questions, count in groups]
    paths = []
    for branch, kind, top_k in (
        ("text", "igi", params.text_top_k),
        ("vision", params.vision_kind, params.vision_top_k),
    ):
        at = (branch, params.batch_size, params.device)
        options = choices | {"kind": kind, "top_k": top_k, "completeness": False}
        scores = [locate(model, processor, of_modality(d, PAIRS[branch][1]), *at, **options) for d in drawn]
        paths.append(select(*scores, top_k, params.ranking, params.aggregate, params.benchmark_dir))
    return paths


def neighbours(sets: ValidationSets, seed: int) -> list[Question]:
    """Neighbours of a trial's forget set that mention no bystander."""
    forget, retain = ({q.person_id for q in part} for part in (sets.forget, sets.retain))
    known, apart = (
        [sets.names[p] for p in sorted(ids)] for ids in (retain, set(sets.names) - forget - retain)
    )
    return neighbour_questions(sets.forget, {p: sets.names[p] for p in forget}, known, apart, seed)


def ask(
    model: nn.Module, processor, sets: ValidationSets, params: BaseModel, change: Edit | None
) -> pd.DataFrame:
    """What a trial asks of the model, with an edit in it if one is given: split, task, value (see `validate`)."""
    with change.applied(model) if change else nullcontext():
        answers = evaluate(model, processor, sets.asked, params.eval_batch_size, params.max_new_tokens)
    labels = dict.fromkeys(("run", "model", "benchmark", "method"), "") | {
        "forget_ratio": 0,
        "seed": params.seed,
    }
    marks = score(answers, **labels)
    recalled = marks.task.isin(("VGEN", "GEN")) & (marks.metric == "value_recall")
    kept = marks[recalled | (marks.task.map(MAIN_METRIC).eq(marks.metric) & (marks.metric == "accuracy"))]
    return kept[["split", "task", "value"]]


def betrayed(
    model: nn.Module, processor, sets: ValidationSets, params: BaseModel, change: Edit | None
) -> pd.DataFrame:
    """What an edit still gives away that only keeps silent: split, task, value (0 to 1).

    Tasks are "name", the share of portraits whose person is named when asked who it is, and "begun", the mean probability
    of the true value when a free answer's words before it are given.
    """
    with change.applied(model) if change else nullcontext():
        rows = list(_betrayed(model, processor, sets, params))
    return pd.DataFrame(rows, columns=["split", "task", "value"])


def _betrayed(
    model: nn.Module, processor, sets: ValidationSets, params: BaseModel
) -> Iterator[tuple[str, str, float]]:
    for split, asked in sets.asked.items():
        free = [question for question in asked if question.task in ("VGEN", "GEN")]
        portraits = {question.person_id: question for question in free if question.image is not None}
        names = [sets.names[person] for person in portraits]
        who = [
            replace(portrait, prompt=WHO, answer=named(name), value=name)
            for portrait, name in zip(portraits.values(), names, strict=True)
        ]
        said = generate(model, processor, who, params.eval_batch_size, params.max_new_tokens)
        yield split, "name", fmean(name in answer for name, answer in zip(names, said, strict=True))
        yield split, "begun", fmean(value_probability(model, processor, free, params.eval_batch_size))


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Means over the trials, and the worst trial: rows split and task, columns (method, mean or worst).

    The worst is the largest value on people to forget, the smallest on all others.
    """
    grouped = found.groupby(["split", "task", "method"], sort=False).value
    forget = found.split.isin(("forget", "test_forget")).groupby(
        [found.split, found.task, found.method], sort=False
    )
    worst = grouped.max().where(forget.first(), grouped.min())
    table = pd.DataFrame({"mean": grouped.mean(), "worst": worst}).unstack("method", sort=False)
    return table.swaplevel(axis=1).sort_index(axis=1, level=0, sort_remaining=False)
