"""How likely a model finds given answers: answer probability and truth ratio (CLEAR, after TOFU; Maini et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from mipnb.batches import answer_logprob, encode
from mipnb.benchmarks import Question
from mipnb.metrics import MARK_COLUMNS

#: tasks whose answers are sentences
_SENTENCES = ("VGEN", "GEN")
_FORGOTTEN = ("forget", "test_forget")


def answer_logprobs(
    model: nn.Module, processor, questions: Sequence[Question], batch_size: int = 16
) -> np.ndarray:
    """Mean log-probability of each question's answer tokens, end token included: float64 (questions,).

    Args:
        model: in eval mode, on any device.
        processor: the model's own.
        questions: any mixture; batches are made of one modality and of like length.
        batch_size: questions a batch.

    Returns:
        In the order of the questions; exp of it is the answer probability F.
    """
    found = np.empty(len(questions))
    for indices in _like_batches(questions, batch_size):
        batch = encode(processor, [questions[i] for i in indices], device=model.device)
        labels = batch.pop("labels")
        with torch.inference_mode():
            found[indices] = answer_logprob(model(**batch).logits, labels).double().cpu().numpy()
    return found


def _like_batches(questions: Sequence[Question], size: int) -> Iterator[list[int]]:
    for modality in ("text", "image_text"):
        indices = [i for i, question in enumerate(questions) if question.modality == modality]
        indices.sort(key=lambda i: len(questions[i].prompt) + len(questions[i].answer))
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


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
