"""Questions encoded once and asked again and again, under one ablation or edit after the other.

An answer's *recall* is 1 where greedy decoding says the gold answer word for word, end token included. One pass over
the gold answer tells: greedy decoding says it if and only if every one of its tokens is the likeliest after those before
it. Nothing leaks, although the gold answer is shown: a first word that is missed counts as all missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Tensor, nn

from mipnb.answers import answer_logits
from mipnb.batches import IGNORED, Batch, answer_logprob, encode
from mipnb.benchmarks import Question
from mipnb.evidence.pictures import Shown, each_picture_once, shown

#: what is done to a model while it is asked a batch
Ablation = Callable[[Batch], AbstractContextManager]
MARKS = ["recall", "probability"]
BY_PERSON = ["set", "modality", "person_id"]


@dataclass(frozen=True, eq=False)
class Asked:
    """Encoded questions.

    Attributes:
        rows: set, modality and person_id of every question, in the order of the batches.
        batches: with labels, one modality each.
    """

    rows: pd.DataFrame
    batches: tuple[Batch, ...]

    @cached_property
    def pictures(self) -> tuple[Shown | None, ...]:
        """Which questions of each batch show the same picture."""
        return tuple(map(shown, self.batches))

    def only(self, **wanted: str) -> Asked:
        """The batches whose rows all have given values, e.g. modality="text" or set="forget".

        Raises:
            ValueError: no batch has them.
        """
        ends = pd.Series([len(batch["labels"]) for batch in self.batches]).cumsum().tolist()
        parts = list(zip([0, *ends[:-1]], ends, self.batches, strict=True))
        hits = [(a, b, batch) for a, b, batch in parts if self._have(a, b, wanted)]
        if not hits:
            raise ValueError(f"no batch of {len(self.batches)} has {wanted}; rows hold {self._held()}")
        rows = pd.concat([self.rows[start:stop] for start, stop, _ in hits], ignore_index=True)
        return Asked(rows, tuple(batch for _, _, batch in hits))

    def _have(self, start: int, stop: int, wanted: Mapping[str, str]) -> bool:
        part = self.rows[start:stop]
        return all((part[column] == value).all() for column, value in wanted.items())

    def _held(self) -> list[dict]:
        return self.rows[["set", "modality"]].drop_duplicates().to_dict("records")


def prepare(
    processor, questions: Mapping[str, Sequence[Question]], batch_size: int = 128, device: str = "cpu"
) -> Asked:
    """Encode the questions of some sets with their answers, in batches of one set, one modality and like length.

    Args:
        processor: of the model that is asked.
        questions: name of a set ("forget", "retain") -> questions.
        batch_size: questions a batch.
        device: where the batches are kept.

    Raises:
        ValueError: a set without questions.
    """
    rows, batches = [], []
    for group, asked in questions.items():
        if not asked:
            raise ValueError(f"the set {group!r} has no questions; expected at least one")
        for modality in ("text", "image_text"):
            part = sorted(
                (q for q in asked if q.modality == modality), key=lambda q: len(q.prompt + q.answer)
            )
            rows += [(group, modality, question.person_id) for question in part]
            cuts = range(0, len(part), batch_size)
            batches += [encode(processor, part[start : start + batch_size], device=device) for start in cuts]
    return Asked(pd.DataFrame(rows, columns=BY_PERSON), tuple(batches))


def untouched(batch: Batch) -> AbstractContextManager:
    """The ablation that does nothing."""
    return nullcontext()


def answer_marks(model: nn.Module, asked: Asked, ablation: Ablation = untouched) -> pd.DataFrame:
    """Marks of every person, means over the person's questions of a set and modality.

    Args:
        model: in eval mode.
        asked: from `prepare`.
        ablation: a context a batch, under which the model is asked it.

    Returns:
        One row a set, modality and person: set, modality, person_id, recall, probability (F), n (questions).
    """
    found = []
    for batch, pictures in zip(asked.batches, asked.pictures, strict=True):
        with torch.inference_mode(), ablation(batch), each_picture_once(model, batch, pictures):
            logits, labels = answer_logits(model, batch)
        found.append(torch.stack([_said(logits, labels), answer_logprob(logits, labels).exp()], 1).cpu())
    values = pd.DataFrame(torch.cat(found).double().numpy(), columns=MARKS)
    marks = pd.concat([asked.rows, values.assign(n=1)], axis=1).groupby(BY_PERSON, sort=False)
    return marks.agg({"recall": "mean", "probability": "mean", "n": "sum"}).reset_index()


def _said(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where every answer token is the likeliest: float32 (batch,), from (batch, columns, vocabulary), (batch, columns)."""
    targets = labels[:, 1:]
    right = logits[:, :-1].argmax(-1) == targets
    return (right | (targets == IGNORED)).all(1).float()
