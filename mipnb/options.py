"""How likely given answers are, the prompt of several answers to one question being gone through once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mipnb.batches import IGNORED, answer_logprob, answer_tokens, encode
from mipnb.benchmarks import Question
from mipnb.memory import in_parts
from mipnb.models import input_device
from mipnb.prefixes import shared_prefix, unseen
from mipnb.progress import progress


def answer_logprobs(
    model: nn.Module, processor, questions: Sequence[Question], batch_size: int = 16
) -> np.ndarray:
    """Mean log-probability of each question's answer tokens, end token included: float64 (questions,).

    Questions with one picture and one prompt, which differ in the answer alone (the options of a choice, the
    perturbed answers of a truth ratio), go through their prompt once.

    Args:
        model: in eval mode, on any device.
        processor: the model's own.
        questions: any mixture.
        batch_size: answers a batch; halved, and said so, when memory runs out.

    Returns:
        In the order of the questions; exp of it is the answer probability F.
    """
    found = np.empty(len(questions))
    with progress(len(questions), "weighing answers") as bar:
        for groups in _chunks(questions, batch_size):
            indices = [index for group in groups for index in group]
            asked = [[questions[index] for index in group] for group in groups]
            found[indices] = _judged(model, processor, asked, batch_size)
            bar.update(len(indices))
    return found


def _chunks(questions: Sequence[Question], size: int) -> list[list[list[int]]]:
    """Indices of questions, those of one prompt together, the prompts of one modality in portions of like length."""
    prompts: dict[tuple, list[int]] = {}
    for index, question in enumerate(questions):
        prompts.setdefault((question.modality, question.image, question.prompt), []).append(index)
    chunks = []
    for modality in ("text", "image_text"):
        keys = sorted((key for key in prompts if key[0] == modality), key=lambda key: len(key[2]))
        chunks += [
            [prompts[key] for key in keys[start : start + size]] for start in range(0, len(keys), size)
        ]
    return chunks


def _judged(model: nn.Module, processor, groups: list[list[Question]], most: int) -> list[float]:
    """The answers of some prompts, in batches made across the prompts, of like length."""
    shared = shared_prefix(model, processor, groups)
    asked = [(row, number) for row, group in enumerate(groups) for number in range(len(group))]
    order = sorted(range(len(asked)), key=lambda i: len(groups[asked[i][0]][asked[i][1]].answer))

    def part(some: slice) -> list[float]:
        """Mean log-probabilities, at most 0, of the answers at these places of `order`, in that order: one pass."""
        chosen = [asked[i] for i in order[some]]
        questions = [groups[row][number] for row, number in chosen]
        if shared is None:
            batch = encode(processor, questions, device=input_device(model))
            labels, given = batch.pop("labels"), {}
        else:
            ends = [answer_tokens(processor, question.answer) for question in questions]
            tails = [shared[1][row][number] + end for (row, number), end in zip(chosen, ends, strict=True)]
            rows, pad = [row for row, _ in chosen], processor.tokenizer.pad_token_id
            batch = unseen(shared[0].extended(rows, tails, pad))
            labels = _labels(ends).to(batch["input_ids"])
            given = {"logits_to_keep": labels.shape[1]}
        with torch.inference_mode():
            return answer_logprob(model(**batch, **given).logits, labels).tolist()

    parts, _ = in_parts(part, len(order), most, "answers")
    found = np.empty(len(order))
    found[order] = [value for part in parts for value in part]
    return found.tolist()


def _labels(ends: Sequence[Sequence[int]]) -> Tensor:
    """The answers' tokens as labels padded left, int64 (answers, longest + 1): one column comes before all of them."""
    width = max(map(len, ends)) + 1
    return torch.tensor([[IGNORED] * (width - len(end)) + list(end) for end in ends])
