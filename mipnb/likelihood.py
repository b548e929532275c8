"""How likely a model finds given answers: answer probability and truth ratio (CLEAR, after TOFU; Maini et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from mipnb.benchmarks import Question
from mipnb.metrics import MARK_COLUMNS
from mipnb.options import answer_logprobs

#: tasks whose answers are sentences
_SENTENCES = ("VGEN", "GEN")
_FORGOTTEN = ("forget", "test_forget")


def truth_ratios(
    model: nn.Module, processor, questions: Sequence[Question], batch_size: int = 16
) -> np.ndarray:
    """How much likelier wrong answers are than the right one in other words: float64 (questions,), from 0.

    The geometric mean of the perturbed answers' probabilities over the paraphrase's, each exp of the mean log-probability of
    its tokens, as TOFU's published scoring has it.

    Raises:
        ValueError: a question without paraphrase or perturbed answers.
    """
    if lacking := [
        question.person_id for question in questions if not (question.paraphrase and question.perturbed)
    ]:
        raise ValueError(f"no paraphrase or no perturbed answers in questions about {lacking[:3]}")
    texts = [(i, text) for i, q in enumerate(questions) for text in (q.paraphrase, *q.perturbed)]
    asked = [replace(questions[i], answer=text) for i, text in texts]
    logprobs = answer_logprobs(model, processor, asked, batch_size)
    owner = np.array([i for i, _ in texts])
    groups = (logprobs[owner == i] for i in range(len(questions)))
    return np.array([np.exp(group[1:].mean() - group[0]) for group in groups])


def likelihood_marks(
    model: nn.Module, processor, asked: Mapping[str, Sequence[Question]], batch_size: int = 16
) -> pd.DataFrame:
    """Marks of the free questions of every split, for `evaluation.score_marks`.

    Returns:
        One row a mark, columns `metrics.MARK_COLUMNS`. probability: F. truth_ratio, where the question has a paraphrase and
        perturbed answers: min(R, 1/R) on people to forget, 1 when the model cannot tell right from wrong, and max(0, 1 - R) on
        all others, 1 when it surely can (TOFU).
    """
    rows = []
    for split, group in asked.items():
        free = [question for question in group if question.task in _SENTENCES]
        probabilities = np.exp(answer_logprobs(model, processor, free, batch_size))
        rows += [_row(split, q, "probability", p) for q, p in zip(free, probabilities, strict=True)]
        altered = [question for question in free if question.paraphrase and question.perturbed]
        ratios = truth_ratios(model, processor, altered, batch_size)
        shares = np.minimum(ratios, 1 / ratios) if split in _FORGOTTEN else np.maximum(0, 1 - ratios)
        rows += [_row(split, q, "truth_ratio", share) for q, share in zip(altered, shares, strict=True)]
    return pd.DataFrame(rows, columns=MARK_COLUMNS)


def _row(split: str, question: Question, metric: str, mark: float) -> tuple:
    return split, question.task, question.modality, metric, question.person_id, float(mark)
