"""Paths against neurons chosen one by one (the paper's Fig. 4 and 5): keeping only the best, and silencing the best."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from mipnb.benchmarks import Question
from mipnb.evaluation import evaluate, generate, score
from mipnb.evidence.ranked import Ranked, even_sizes
from mipnb.hooks import zeroed
from mipnb.metrics import match_option
from mipnb.models import BRANCHES, ffns
from mipnb.params import subset
from mipnb.partial import questions_digest
from mipnb.results.setting import Setting, load_setting
from mipnb.silencing import answer_probability

CHOICES = ("path", "activation", "activation_contrast", "manu", "random")
FREE_TASKS = ("VGEN", "GEN")
#: kind of task -> its tasks, with and without the picture
KINDS = {"classification": ("VQA", "QA"), "generation": FREE_TASKS}
Neurons = Mapping[str, Sequence[Sequence[int]]]
#: "keep" or "silence", and neurons of every layer by branch
Unit = tuple[str, Neurons]


def steps_up_to(n_neurons: int, factor: int) -> list[int]:
    """1, factor, factor^2, ... below the number of neurons, then all of them."""
    steps = [1]
    while steps[-1] * factor < n_neurons:
        steps.append(steps[-1] * factor)
    return sorted({*steps, n_neurons})


def others(neurons: Sequence[Sequence[int]], n_neurons: int) -> list[list[int]]:
    """Per layer the neurons that are not among these."""
    return [sorted(set(range(n_neurons)) - set(layer)) for layer in neurons]


def keep_only(setting: Setting, branch: str, one: Ranked, k: int) -> pd.DataFrame:
    """Let only the top k neurons of every layer of a branch act, at 0 all others, and ask for free answers.

    The same neurons chosen in two ways are asked once.

    Returns:
        ROUGE-L and recall of the value: split, task, metric, value, n, low, high, then branch, choice, draw, k.
    """
    found = kept_answers(setting, branch, kept_neurons(one, k))
    return found.assign(branch=branch, choice=one.choice, draw=one.draw, k=k)


def kept_neurons(one: Ranked, k: int) -> list[list[int]]:
    """The top k of every layer."""
    return one.top(even_sizes(k, *one.values.shape))


def kept_answers(setting: Setting, branch: str, kept: Sequence[Sequence[int]]) -> pd.DataFrame:
    """What `keep_only` finds for these neurons of every layer of a branch, however they were chosen; a unit of work."""
    tasks = FREE_TASKS if branch == "text" else ("VGEN",)
    n_neurons = ffns(setting.model, branch)[0].n_neurons

    def make() -> dict[str, pd.DataFrame]:
        """The unit's tables, made anew."""
        asked = {split: [q for q in group if q.task in tasks] for split, group in setting.asked.items()}
        limits = setting.params.eval_batch_size, setting.params.max_new_tokens
        with zeroed(ffns(setting.model, branch), others(kept, n_neurons)):
            answers = evaluate(setting.model, setting.processor, asked, *limits)
        labels = {"method": "keep", "seed": 0, "protocol": setting.params.protocol} | setting.labels
        return {"results": score(answers, **labels)}

    found = setting.kept({"keep": kept, "branch": branch}, make)["results"]
    return found[["split", "task", "metric", "value", "n", "low", "high"]]


def keep_curves(setting: Setting, rankings: Mapping[str, Sequence[Ranked]], factor: int) -> pd.DataFrame:
    """`keep_only` for every ranking, from one neuron a layer to the whole layer."""
    parts = [keep_only(setting, branch, one, k) for branch, one, k in _kept_places(rankings, factor)]
    return pd.concat(parts, ignore_index=True)


def _kept_places(rankings: Mapping[str, Sequence[Ranked]], factor: int) -> Iterator[tuple[str, Ranked, int]]:
    """Branch, ranking and neurons a layer of every point of `keep_curves`."""
    for branch, group in rankings.items():
        for k in steps_up_to(group[0].values.shape[1], factor):
            yield from ((branch, one, k) for one in group)


def in_own_words(setting: Setting) -> dict[str, list[Question]]:
    """The questions with options, each with its gold answer as the vanilla model says it, beside the free ones as they are.

    A model may answer options by a letter, the option's text or a sentence; the probability of a form that it never uses says
    nothing. Where the vanilla model names the gold option, its own words are the gold answer, elsewhere the option's text.
    """
    limits = setting.params.eval_batch_size, setting.params.max_new_tokens
    found = {}
    for split, group in setting.asked.items():
        chosen = [question for question in group if question.options]
        said = iter(generate(setting.model, setting.processor, chosen, *limits))
        found[split] = [_said(question, next(said)) if question.options else question for question in group]
    return found


def _said(question: Question, words: str) -> Question:
    index = match_option(words, question.options)
    named = index is not None and question.options[index] == question.answer
    return replace(question, answer=words) if named else question


def gold_probabilities(
    setting: Setting, asked: Mapping[str, Sequence[Question]], silent: Neurons
) -> pd.DataFrame:
    """The gold answer's probability (mean over its tokens, exp) of every question while neurons are silenced.

    Args:
        setting: the model.
        asked: split -> questions, from `in_own_words`.
        silent: branch -> neurons of every layer; an empty mapping is the untouched model. A unit of work.

    Returns:
        Columns split, task, person_id, probability, in the order of the questions of each split and task.
    """

    def make() -> dict[str, pd.DataFrame]:
        with ExitStack() as stack:
            for branch, neurons in silent.items():
                stack.enter_context(zeroed(ffns(setting.model, branch), neurons))
            return {"gold": _gold(setting, asked)}

    key = {"silent": {branch: list(map(list, neurons)) for branch, neurons in silent.items()}}
    key["asked"] = questions_digest(question for group in asked.values() for question in group)
    return setting.kept(key, make)["gold"]


def _gold(setting: Setting, asked: Mapping[str, Sequence[Question]]) -> pd.DataFrame:
    p, parts = setting.params, []
    for split, group in asked.items():
        for task in dict.fromkeys(question.task for question in group):
            some = [question for question in group if question.task == task]
            found = answer_probability(setting.model, setting.processor, some, p.eval_batch_size, p.device)
            columns = {"split": split, "task": task, "person_id": [q.person_id for q in some]}
            parts.append(pd.DataFrame(columns | {"probability": found.probability.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def prune_changes(
    setting: Setting, rankings: Mapping[str, Sequence[Ranked]], sizes: Mapping[str, Mapping[str, int]]
) -> pd.DataFrame:
    """Change of the gold probability of every question when the top neurons are silenced: text, vision, and both.

    Args:
        setting: model and questions.
        rankings: from `all_rankings`; choices and draws of the branches go together.
        sizes: label -> branch -> neurons a layer.

    Returns:
        One row a size, place, choice, draw and question: size, pruned, choice, draw, split, task, person_id, before,
        change.
    """
    asked = in_own_words(setting)
    before, tables = gold_probabilities(setting, asked, {}), []
    for labels, silent in _silenced(rankings, sizes):
        after = gold_probabilities(setting, asked, silent)
        change = after.probability.to_numpy() - before.probability.to_numpy()
        tables.append(before.rename(columns={"probability": "before"}).assign(change=change, **labels))
    return pd.concat(tables, ignore_index=True)


def _silenced(
    rankings: Mapping[str, Sequence[Ranked]], sizes: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[dict, dict[str, list[list[int]]]]]:
    """Labels (size, pruned, choice, draw) and silenced neurons, branch by branch, of every case of `prune_changes`."""
    for size, counts in sizes.items():
        for group in zip(*(rankings[branch] for branch in BRANCHES), strict=True):
            cut = {b: kept_neurons(one, counts[b]) for b, one in zip(BRANCHES, group, strict=True)}
            for pruned, where in {"text": ("text",), "vision": ("vision",), "both": BRANCHES}.items():
                labels = {"size": size, "pruned": pruned, "choice": group[0].choice, "draw": group[0].draw}
                yield labels, {branch: cut[branch] for branch in where}


def units(
    rankings: Mapping[str, Sequence[Ranked]], factor: int, sizes: Mapping[str, Mapping[str, int]]
) -> list[Unit]:
    """Every unit of `keep_curves` and of `prune_changes` once, for `unit_maker`: what is done to which neurons of a branch."""
    found: list[Unit] = [
        ("keep", {branch: kept_neurons(one, k)}) for branch, one, k in _kept_places(rankings, factor)
    ]
    found += [("silence", {}), *(("silence", silent) for _, silent in _silenced(rankings, sizes))]
    return [unit for index, unit in enumerate(found) if unit not in found[:index]]


def unit_maker(setting: Setting) -> Callable[[Unit], None]:
    """What makes a unit and keeps it in the notebook's folder, where `keep_curves` and `prune_changes` find it."""
    asked = functools.cache(lambda: in_own_words(setting))

    def make(unit: Unit) -> None:
        """The unit, unless it is kept already; the answers in the vanilla model's words are made once for all."""
        what, neurons = unit
        if what == "silence":
            gold_probabilities(setting, asked(), neurons)
            return
        for branch, kept in neurons.items():
            kept_answers(setting, branch, kept)

    return make


def notebook_setting(params: BaseModel) -> Setting:
    """The setting of notebook 08."""
    return load_setting(params, "08_pointwise", ("forget", "retain"), n_each=params.curve_questions)


def load_unit_maker(values: Mapping[str, Any]) -> Callable[[Unit], None]:
    """`unit_maker` in a helper (`lanes`), from the values of notebook 08's parameters."""
    return unit_maker(notebook_setting(subset(values)))


def relative_changes(changes: pd.DataFrame, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Relative changes of both sets and their ratio, with 95 % intervals of a bootstrap over people.

    Args:
        changes: from `prune_changes`, of one size and place; several draws are averaged question by question.
        n_resamples, seed: of the bootstrap. People are the same for all choices.

    Returns:
        One row a kind, choice and measure: kind, choice, measure, value, low, high. Measures, with p the gold
        probability: forget, retain: sum |change of p| over sum p (the paper's relative MAE); fall_forget, fall_retain:
        the same with its sign, falls positive; ratio: forget over retain.
    """
    rows = []
    for kind, tasks in KINDS.items():
        part = changes[changes.task.isin(tasks)].assign(size_of_change=lambda t: t.change.abs())
        if not part.empty:
            rows += [(kind, *row) for row in _one_kind(part, n_resamples, seed)]
    return pd.DataFrame(rows, columns=["kind", "choice", "measure", "value", "low", "high"])


def _one_kind(part: pd.DataFrame, n_resamples: int, seed: int) -> list[tuple]:
    random, found, rows = np.random.default_rng(seed), {}, []
    for split in ("forget", "retain"):
        sums = (
            part[part.split == split]
            .groupby(["choice", "person_id"])[["before", "change", "size_of_change"]]
            .sum()
        )
        people = sums.index.unique("person_id")
        drawn = random.multinomial(len(people), np.full(len(people), 1 / len(people)), size=n_resamples)
        weights = np.vstack([np.ones(len(people)), drawn])  # row 0: everybody once
        for choice in dict.fromkeys(part.choice):
            before, change, size = (weights @ sums.loc[choice].loc[people].to_numpy()).T
            found[choice, split] = size / before
            found[choice, f"fall_{split}"] = -change / before
    for choice in dict.fromkeys(part.choice):
        found[choice, "ratio"] = found[choice, "forget"] / np.maximum(found[choice, "retain"], 1e-6)
        for measure in ("forget", "retain", "fall_forget", "fall_retain", "ratio"):
            values = found[choice, measure]
            rows.append((choice, measure, values[0], *np.quantile(values[1:], [0.025, 0.975])))
    return rows
