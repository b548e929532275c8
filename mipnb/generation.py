"""What a model says: greedy answers to many questions, batched by modality, task and length."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from transformers import GenerationConfig

from mipnb.artefacts import read_json, write_json
from mipnb.batches import encode
from mipnb.benchmarks import Question
from mipnb.memory import in_parts
from mipnb.models import input_device
from mipnb.partial import Partial, partial_results, processor_digest, questions_digest, weights_digest
from mipnb.prefixes import Prefix, shared_prefix
from mipnb.progress import Counter, progress

ANSWER_COLUMNS = [
    "split", "person_id", "task", "modality", "prompt", "answer", "value", "options", "generated",
]  # fmt: skip


def generate(
    model: nn.Module,
    processor,
    questions: Sequence[Question],
    batch_size: int = 64,
    max_new_tokens: int = 32,
    *,
    share_prefix: bool = True,
    resume: str | Path | None = None,
) -> list[str]:
    """Greedy answers, in the order of the questions.

    Out of memory halves the batch, says so and goes on; answers do not depend on it.

    Args:
        model: in eval mode, on any device.
        processor: the model's own.
        questions: any mixture; batches are made of one modality and of like length.
        batch_size: questions a batch, at least 1.
        max_new_tokens: an answer ends there if no end token came before.
        share_prefix: go through a picture, and what else prompts begin with, once for all its questions
            (`prefixes.shared_prefix`), where the family can.
        resume: the notebook's folder, where answers are kept until it is through (`mipnb.partial`), those of each pass
            through the model as soon as it ends; a stopped run asks the questions that have none, in batches of any size.
            None keeps nothing. The model's weights, and with them an edit in it, are part of what answers are kept by;
            hooks on it are not.

    Returns:
        The answers without special tokens, stripped. Sampling, beams and penalties that the model's own
        generation settings may name are switched off.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    settings = _greedy(model, processor, max_new_tokens)
    kept = partial_results(
        resume, "answers", model=lambda: weights_digest(model), processor=lambda: processor_digest(processor),
        questions=lambda: questions_digest(questions),
        max_new_tokens=max_new_tokens, share_prefix=share_prefix,
    )  # fmt: skip
    known = {index: text for said in kept.all(read_json) for index, text in said}
    with progress(len(questions), "asking", len(known)) as bar:
        asking = _Asking(model, processor, questions, settings, kept, bar, batch_size, answers=known)
        for pictures in _chunks(questions, batch_size):
            in_parts(
                lambda part, pictures=pictures: asking.pictures(pictures[part], share_prefix),
                len(pictures), len(pictures), "pictures",
            )  # fmt: skip
    return [asking.answers[index] for index in range(len(questions))]


@dataclass(eq=False)
class _Asking:
    """Questions on their way to answers.

    Attributes:
        model, processor, questions: see `generate`.
        settings: of the decoding.
        kept: where answers are kept, lists of (index, text).
        bar: told how many are answered.
        batch_size: questions a batch.
        rows: how many of them fit into memory.
        answers: what was said, by the questions' index.
    """

    model: nn.Module
    processor: Any
    questions: Sequence[Question]
    settings: GenerationConfig
    kept: Partial
    bar: Counter
    batch_size: int
    rows: int = 0
    answers: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = self.batch_size

    def pictures(self, pictures: Sequence[list[int]], share_prefix: bool) -> None:
        """Answer the questions (indices) of some pictures that have no answer yet, in batches of like length."""
        left = [group for group in pictures if not self.answers.keys() >= set(group)]
        prefix = functools.cache(lambda: self._prefix(left) if share_prefix else None)
        indices = sorted((index for group in pictures for index in group), key=self._like)
        for start in range(0, len(indices), self.batch_size):
            part = [i for i in indices[start : start + self.batch_size] if i not in self.answers]
            if part:
                self._answer(part, prefix())

    def _like(self, index: int) -> tuple[str, int]:
        """Questions whose prompts and answers have like length have like keys."""
        return self.questions[index].task, len(self.questions[index].prompt)

    def _prefix(
        self, pictures: Sequence[list[int]]
    ) -> tuple[Prefix, dict[int, tuple[int, list[int]]]] | None:
        """What the prompts share; and of each question the row of its picture and its remaining tokens."""
        groups = [[self.questions[index] for index in group] for group in pictures]
        found = shared_prefix(self.model, self.processor, groups)
        if found is None:
            return None
        prefix, tails = found
        owners = [
            (index, (row, tail))
            for row, (group, rest) in enumerate(zip(pictures, tails, strict=True))
            for index, tail in zip(group, rest, strict=True)
        ]
        return prefix, dict(owners)

    def _answer(self, indices: Sequence[int], prefix: tuple | None) -> None:
        """Answer one batch, in as many passes as memory asks for; each pass's answers are kept at once."""

        def answer(part: slice) -> None:
            """One pass: answers the questions at these places of `indices`, and keeps what was said."""
            said = list(zip(indices[part], self._said(indices[part], prefix), strict=True))
            name = hashlib.sha256(str(indices[part]).encode()).hexdigest()[:16]
            self.answers |= dict(self.kept.keep(f"{name}.json", said, _write))
            self.bar.update(len(said))

        _, self.rows = in_parts(answer, len(indices), self.rows, "questions")

    def _said(self, indices: Sequence[int], prefix: tuple | None) -> list[str]:
        """One pass through the model."""
        if prefix is None:
            asked = [self.questions[index] for index in indices]
            batch = encode(self.processor, asked, with_answer=False, device=input_device(self.model))
        else:
            rows, tails = zip(*(prefix[1][index] for index in indices), strict=True)
            batch = prefix[0].extended(rows, tails, self.settings.pad_token_id)
        with torch.inference_mode():
            tokens = self.model.generate(**batch, generation_config=self.settings)
        new = tokens[:, batch["input_ids"].shape[1] :]  # (batch, new tokens)
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]


def _write(said: list[tuple[int, str]], path: Path) -> None:
    write_json(path, said)


def _chunks(questions: Sequence[Question], batch_size: int) -> Iterator[list[list[int]]]:
    """Pictures (lists of their questions' indices) that are gone through together, text questions first.

    A chunk has about four batches of questions, so that few batches are small, and at most one of pictures.
    """
    pictures: dict[bytes | None, list[int]] = {}
    for index, question in enumerate(questions):
        pictures.setdefault(question.image, []).append(index)
    text = pictures.pop(None, [])
    if text:
        yield [text]
    chunk: list[list[int]] = []
    for group in pictures.values():
        if chunk and (len(chunk) == batch_size or sum(map(len, chunk)) + len(group) > 4 * batch_size):
            yield chunk
            chunk = []
        chunk.append(group)
    if chunk:
        yield chunk


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
    resume: str | Path | None = None,
) -> pd.DataFrame:
    """The model's answers to the questions of every split.

    Args:
        model: vanilla, or with an edit applied.
        processor: the model's own.
        questions: split name -> its questions.
        batch_size, max_new_tokens, resume: see `generate`.

    Returns:
        One row a question, in the order given: split, person_id, task, modality, prompt, answer (gold),
            value, options
        (a list), generated.
    """
    asked = [(split, question) for split, group in questions.items() for question in group]
    questions = [question for _, question in asked]
    said = generate(model, processor, questions, batch_size, max_new_tokens, resume=resume)
    rows = [
        (split, q.person_id, q.task, q.modality, q.prompt, q.answer, q.value, list(q.options), text)
        for (split, q), text in zip(asked, said, strict=True)
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)
