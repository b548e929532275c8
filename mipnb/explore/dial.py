"""The strength of an edit: an edit is a delta of weights, so any part of it can be applied without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from mipnb.benchmarks import Question
from mipnb.edits import Edit
from mipnb.explore.ask import value_probability
from mipnb.generation import generate

COLUMNS = ["strength", "set", "probability", "recall", "n"]


def scaled(edit: Edit, strength: float) -> Edit:
    """The edit with its delta scaled: vanilla at 0 and the edit at 1, both bit for bit.

    Args:
        edit: of a vanilla model.
        strength: 0 to 1.

    Raises:
        ValueError: a strength outside 0 and 1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}, expected 0 (vanilla) to 1 (the whole edit)")
    parts = tuple(replace(part, new=_between(part.old, part.new, strength)) for part in edit.slices)
    return Edit(parts, edit.fingerprint, {**edit.metadata, "strength": strength})


def _between(old: torch.Tensor, new: torch.Tensor, strength: float) -> torch.Tensor:
    if strength in (0, 1):
        return (new if strength else old).clone()
    return (old.float() + strength * (new.float() - old.float())).to(old.dtype)


@contextmanager
def dialed(model: nn.Module, edit: Edit, strength: float) -> Iterator[nn.Module]:
    """The model with so much of the edit in it, for the length of a `with` block; vanilla again after it, bit for bit."""
    part = scaled(edit, strength)
    if part.is_applied(model):  # at 0, or so near to it that rounding leaves nothing
        yield model
    else:
        with part.applied(model):
            yield model


def dial_point(
    model: nn.Module,
    processor,
    edit: Edit,
    strength: float,
    asked: Mapping[str, Sequence[Question]],
    max_new_tokens: int = 20,
) -> pd.DataFrame:
    """Scores of both sets at one strength.

    Args:
        model: vanilla, before and after.
        processor: the model's own.
        edit: the whole edit.
        strength: 0 to 1.
        asked: "forget" and "retain" -> questions with their values.
        max_new_tokens: an answer ends there.

    Returns:
        One row a set: strength, set, probability (mean, of the true value), recall (share of answers that hold the
        value, or the whole answer where it has none), n.
    """
    rows = []
    with dialed(model, edit, strength):
        for group, questions in asked.items():
            said = generate(model, processor, questions, 64, max_new_tokens)
            held = [
                (q.value or q.answer).lower() in text.lower() for q, text in zip(questions, said, strict=True)
            ]
            likely = value_probability(model, processor, questions)
            rows.append((strength, group, sum(likely) / len(likely), sum(held) / len(held), len(questions)))
    return pd.DataFrame(rows, columns=COLUMNS)
