"""Locating over many questions: scores of a whole set, by person, and what can be read off them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from mipnb import models
from mipnb.attribution import MAX_ROWS, N_STEPS, SEARCH, attribute, most_rows
from mipnb.batches import encode
from mipnb.benchmarks import Question
from mipnb.memory import fitting
from mipnb.partial import Partial, partial_results, processor_digest, questions_digest, weights_digest
from mipnb.preconditions import check_device, check_numbers, check_precision, check_sets
from mipnb.progress import progress
from mipnb.rules import ADAPTIVE, RULES
from mipnb.scores import Scores, concatenate

TEXT, IMAGE_TEXT = "text", "image_text"
#: which branch is scored on which questions; the names of the score files
PAIRS = {"text": ("text", TEXT), "text_pictured": ("text", IMAGE_TEXT), "vision": ("vision", IMAGE_TEXT)}

#: choices that scores do not depend on
_SIZES = ("max_rows", "memory_gb")


def of_modality(questions: Iterable[Question], modality: str) -> list[Question]:
    """The questions with a picture ("image_text"), or those without ("text")."""
    return [question for question in questions if question.modality == modality]


def question_names(questions: Iterable[Question]) -> list[str]:
    """A name a question, "<person>/<how manieth of this person's>"; unique within the list."""
    seen: Counter[str] = Counter()
    names = []
    for question in questions:
        names.append(f"{question.person_id}/{seen[question.person_id]}")
        seen[question.person_id] += 1
    return names


def locate(
    model: nn.Module,
    processor,
    questions: Sequence[Question],
    branch: str,
    batch_size: int = 32,
    device: str = "cpu",
    resume: str | Path | None = None,
    **choices: Any,
) -> Scores:
    """Score every neuron of a branch for every question, batch by batch.

    Out of memory halves the rows of a pass (`max_rows`), says so and goes on; scores do not depend on it. A budget
    (`memory_gb`) keeps passes below it from the beginning.

    Args:
        model, processor: from `load_model`, `load_processor`.
        questions: of one modality; with pictures for the vision branch.
        branch: "text" or "vision".
        batch_size: questions at a time.
        device: where the model is.
        resume: the notebook's folder, where scores are kept until it is through (`mipnb.partial`), those of each batch as
            soon as they are there; a stopped run locates the questions that have none, in batches of any size. None keeps
            nothing.
        **choices: how scores are computed, as `mipnb.attribution.attribute` explains:
            kind: "igi" (Eq. 4) or "ifi" (Eq. 6); by default igi for text and ifi for vision.
            score: "complete" (each neuron's own integral, the default) or "joint" (as printed).
            search: "shortlist" (the default), "exact", "greedy", "one_pass", "tangent", "gradient" or "relevance".
            n_steps: grid points m, 4 by default.
            rule: of the grid: "right" (the default, but where a gap is defined), "midpoint", "gauss" or "stieltjes".
            top_k: neurons that each layer adds to a question's own path while it is searched, 5 by default.
            target: "probability" or "log_likelihood" of the answer; by default the former for igi, the latter for ifi.
            completeness: whether the completeness gap is computed, too (True).
            max_rows: the most questions x copies of one forward pass.
            memory_gb: memory that passes may take beside the weights.

    Returns:
        Scores named by `question_names`.

    Raises:
        ValueError: no questions, of both modalities, or what `attribute` refuses.
    """
    check_numbers(batch_size=batch_size)
    check_device(device)
    if not questions:
        raise ValueError(f"there is no question to locate the {branch} branch on; expected at least one")
    check_sets({branch: questions})
    check_precision(model)
    names, fingerprint = question_names(questions), models.fingerprint(model)
    kept = _kept(resume, model, processor, questions, branch, choices)
    rows = choices.pop("max_rows", _most_rows(batch_size, choices))
    parts = kept.all(Scores.load)
    left = _not_located(names, parts)

    def scored(part: Sequence[int]) -> Scores:
        """Scores of the questions with these indices; the rows of a pass stay halved for the next ones."""
        nonlocal rows
        batch = encode(processor, [questions[index] for index in part], device=device)
        given = choices | {"names": [names[index] for index in part], "fingerprint": fingerprint}
        found, rows = fitting(lambda n: attribute(model, batch, branch, max_rows=n, **given), rows, "rows")
        return found

    with progress(len(questions), f"locating ({branch})", len(questions) - len(left)) as bar:
        for start in range(0, len(left), batch_size):
            part = left[start : start + batch_size]
            parts.append(kept.keep(f"{part[0]:06d}.safetensors", scored(part), Scores.save))
            bar.update(len(part))
    return in_order(concatenate(parts), names)


def _kept(
    resume: str | Path | None,
    model: nn.Module,
    processor: Any,
    questions: Sequence[Question],
    branch: str,
    choices: Mapping[str, Any],
) -> Partial:
    """The folder of scores that are told from others by all that they depend on."""
    return partial_results(
        resume, "scores", branch=branch, choices={k: v for k, v in choices.items() if k not in _SIZES},
        model=lambda: weights_digest(model), processor=lambda: processor_digest(processor),
        questions=lambda: questions_digest(questions),
    )  # fmt: skip


def _not_located(names: Sequence[str], parts: Iterable[Scores]) -> list[int]:
    """Indices of the questions whose scores are in none of the parts."""
    known = {name for part in parts for name in part.names}
    return [index for index, name in enumerate(names) if name not in known]


def in_order(scores: Scores, names: Sequence[str]) -> Scores:
    """Scores in the order of the names."""
    if scores.names == tuple(names):
        return scores
    row = {name: index for index, name in enumerate(scores.names)}
    rows = [row[name] for name in names]
    fields = {name: getattr(scores, name) for name in ("values", "f_full", "f_zero", "gap")}
    ordered = {name: None if found is None else found[rows] for name, found in fields.items()}
    return replace(scores, names=tuple(names), **ordered)


def _most_rows(batch_size: int, choices: Mapping[str, Any]) -> int:
    """Rows of a pass to begin with; under a budget a whole batch at all grid points, of which as many as fit are taken."""
    search, n_steps = choices.get("search", SEARCH), choices.get("n_steps", N_STEPS)
    if choices.get("memory_gb") is None:
        return most_rows(search, batch_size, n_steps)
    return max(MAX_ROWS, batch_size * n_steps)


def by_person(scores: Scores) -> dict[str, Scores]:
    """Each person's rows of scores that `locate` has named, by person, in order of name."""
    people = [name.rpartition("/")[0] for name in scores.names]
    parts = {}
    for person in sorted(set(people)):
        rows = [index for index, other in enumerate(people) if other == person]
        names = tuple(scores.names[index] for index in rows)
        parts[person] = replace(
            scores, values=scores.values[rows], names=names, f_full=None, f_zero=None, gap=None
        )
    return parts


def concentration(scores: Scores) -> pd.DataFrame:
    """How much of all that the scores add up to, the largest hold.

    Mean over samples first, then magnitudes, all layers together.

    Returns:
        Columns top (share of the neurons, 0 to 1) and held (share of the sum of magnitudes), ascending; the
        diagonal would be: all neurons alike.
    """
    ranked = scores.values.mean(0).abs().flatten().sort(descending=True).values.double()
    held = ranked.cumsum(0) / ranked.sum()
    top = torch.arange(1, len(ranked) + 1, dtype=torch.float64) / len(ranked)
    return pd.DataFrame({"top": top.numpy(), "held": held.numpy()})


def held_by(scores: Scores, top: float) -> float:
    """The share of the sum of magnitudes that the top share of neurons holds (at least one neuron)."""
    curve = concentration(scores)
    return float(curve.held.iloc[max(1, round(top * len(curve))) - 1])


def rank_correlation(a: Scores, b: Scores) -> float:
    """Spearman's correlation of two mean scores over all neurons of a branch, -1 to 1."""
    first, second = (pd.Series(scores.values.mean(0).flatten().numpy()) for scores in (a, b))
    return float(first.rank().corr(second.rank()))


def gap_verdict(medians: Mapping[str, float], rule: str, n_steps: int, small: float = 0.1) -> str:
    """Markdown that says what a completeness gap allows.

    Args:
        medians: branch -> median gap.
        rule, n_steps: the integration they were found with.
        small: the largest gap at which scores count as amounts.
    """
    told = " and ".join(f"{gap:.2f} ({branch})" for branch, gap in medians.items())
    if rule in ADAPTIVE:
        return (
            f"With rule `{rule}` and m = {n_steps} the median gap is {told}. That rule's integrals add up by construction: "
            "**how far the scores can be trusted is to be seen from more steps, not from this gap.**"
        )
    large = [branch for branch, gap in medians.items() if not gap <= small]
    verdict = f"**Small: the scores are good as amounts** (all at most {small})."
    if large:
        verdict = (
            f"**That is large ({', '.join(large)}): such scores rank neurons, they are no amounts.** Where a model is sure, "
            "F stays near its end value until most of the activation is gone, and a few points miss the step."
        )
    return f"With rule `{rule}` and m = {n_steps} the median gap is {told}. {verdict}"


def gap_by_steps(
    model: nn.Module,
    processor,
    questions: Sequence[Question],
    branch: str,
    steps: Sequence[int],
    rules: Sequence[str] = RULES,
    device: str = "cpu",
) -> pd.DataFrame:
    """The completeness gap of integrated gradients, all layers scaled together, by rule and number of steps.

    Passes hold as many rows as memory allows: half as many whenever it runs out.

    Returns:
        One row a rule, m and question: branch, rule, n_steps, name, gap.
    """
    batch, names = encode(processor, questions, device=device), question_names(questions)
    rows, most = [], MAX_ROWS
    own = {"kind": "igi", "search": "one_pass", "top_k": 1, "fingerprint": models.fingerprint(model)}
    for rule in rules:
        for n_steps in steps:
            given = own | {"n_steps": n_steps, "rule": rule}
            found, most = fitting(
                lambda n, given=given: attribute(model, batch, branch, max_rows=n, **given), most
            )
            rows += [
                (branch, rule, n_steps, name, gap)
                for name, gap in zip(names, found.gap.tolist(), strict=True)
            ]
    return pd.DataFrame(rows, columns=["branch", "rule", "n_steps", "name", "gap"])
