"""What a model says: greedy answers to many questions, batched by modality, task and length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import pandas as pd
import torch
from torch import nn
from transformers import GenerationConfig

from mipnb.batches import encode
from mipnb.benchmarks import Question
from mipnb.models import input_device

ANSWER_COLUMNS = [
    "split", "person_id", "task", "modality", "prompt", "answer", "value", "options", "generated",
]  # fmt: skip


def generate(
    model: nn.Module, processor, questions: Sequence[Question], batch_size: int = 64, max_new_tokens: int = 32
) -> list[str]:
    """Greedy answers, in the order of the questions.

    Args:
        model: in eval mode, on any device.
        processor: the model's own.
        questions: any mixture; batches are made of one modality and of like length.
        batch_size: questions a batch, at least 1.
        max_new_tokens: an answer ends there if no end token came before.

    Returns:
        The answers without special tokens, stripped. Sampling, beams and penalties that the model's own
        generation settings may name are switched off.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    answers = [""] * len(questions)
    settings = _greedy(model, processor, max_new_tokens)
    for indices in _like_batches(questions, batch_size):
        batch = encode(processor, [questions[i] for i in indices], with_answer=False, device=input_device(model))
        with torch.inference_mode():
            tokens = model.generate(**batch, generation_config=settings)
        new = tokens[:, batch["input_ids"].shape[1] :]  # (batch, new tokens)
        for i, text in zip(indices, processor.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[i] = text.strip()
    return answers


def _like_batches(questions: Sequence[Question], size: int) -> Iterator[list[int]]:
    """Indices of questions of one modality, sorted so that a batch's prompts and answers have like length."""

    def key(i: int) -> tuple[str, str, int]:
        return questions[i].modality, questions[i].task, len(questions[i].prompt)

    for _, group in groupby(sorted(range(len(questions)), key=key), key=lambda i: questions[i].modality):
        indices = list(group)
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def _greedy(model: nn.Module, processor, max_new_tokens: int) -> GenerationConfig:
    tokenizer = processor.tokenizer
    ends = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    return GenerationConfig(
        do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, eos_token_id=sorted(ends),
    )  # fmt: skip


def evaluate(
    model: nn.Module,
    processor,
    questions: Mapping[str, Sequence[Question]],
    batch_size: int = 64,
    max_new_tokens: int = 32,
) -> pd.DataFrame:
    """The model's answers to the questions of every split.

    Args:
        model: vanilla, or with an edit applied.
        processor: the model's own.
        questions: split name -> its questions.
        batch_size, max_new_tokens: see `generate`.

    Returns:
        One row a question, in the order given: split, person_id, task, modality, prompt, answer (gold),
            value, options
        (a list), generated.
    """
    asked = [(split, question) for split, group in questions.items() for question in group]
    said = generate(model, processor, [question for _, question in asked], batch_size, max_new_tokens)
    rows = [
        (split, q.person_id, q.task, q.modality, q.prompt, q.answer, q.value, list(q.options), text)
        for (split, q), text in zip(asked, said, strict=True)
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)
