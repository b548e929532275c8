"""One question to the vanilla model and to edits of it: answers side by side, and how probable the true value is."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from mipnb.batches import IGNORED, answer_logprob, answer_tokens, batches, decode_image, encode
from mipnb.benchmarks import Question
from mipnb.edits import Edit
from mipnb.families import family_of
from mipnb.generation import generate
from mipnb.models import input_device


def ask_both(
    model: nn.Module,
    processor,
    question: Question,
    edits: Mapping[str, Edit],
    max_new_tokens: int = 20,
) -> pd.DataFrame:
    """What the vanilla model and each edit answer, and the probability of the true value.

    Args:
        model: vanilla; it is so again afterwards, bit for bit.
        processor: the model's own.
        question: with its right `answer` and `value`; with a value alone, the vanilla model's answer stands in for the
            right one where it holds the value; with neither there are no probabilities.
        edits: name -> edit.
        max_new_tokens: an answer ends there.

    Returns:
        One row a model, "vanilla" first: model, answer, probability (NaN if no truth is known).

    Raises:
        ValueError: an empty question, a picture that cannot be read, or an edit of another model.
    """
    if not question.prompt.strip():
        raise ValueError("there is no question: type one, or choose one of the list")
    known, rows = bool(question.value or question.answer), []
    for name, one in {"vanilla": None, **edits}.items():
        with one.applied(model) if one else nullcontext():
            said = generate(model, processor, [question], 1, max_new_tokens)[0]
            if one is None and not question.answer:
                question = replace(question, answer=said if question.value in said else question.value)
            likely = value_probability(model, processor, [question])[0] if known else float("nan")
            rows.append((name, said, likely))
    return pd.DataFrame(rows, columns=["model", "answer", "probability"])


def value_probability(
    model: nn.Module, processor, questions: Sequence[Question], batch_size: int = 32
) -> list[float]:
    """How probable the true value is, the right answer's words before it being given: 0 to 1, a question each.

    The product of the probabilities of the tokens that spell the value; of the whole answer, where it holds no value.
    """
    order = [
        q
        for modality in ("text", "image_text")
        for q in range(len(questions))
        if questions[q].modality == modality
    ]
    found: list[float] = []
    for group in batches(questions, batch_size):
        batch = encode(processor, group, device=input_device(model))
        labels = torch.stack(
            [_valued(processor, q, row) for q, row in zip(group, batch.pop("labels"), strict=True)]
        )
        with torch.inference_mode():
            mean = answer_logprob(model(**batch).logits, labels)
        found += (mean * (labels[:, 1:] != IGNORED).sum(-1)).exp().tolist()
    return [value for _, value in sorted(zip(order, found, strict=True))]


def _valued(processor, question: Question, labels: Tensor) -> Tensor:
    """Labels (tokens,) of the value's tokens alone."""
    end = family_of(processor).turn_end or processor.tokenizer.eos_token
    text = question.answer + end
    spans = processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    start = question.answer.lower().find(question.value.lower()) if question.value else 0
    stop = start + len(question.value or question.answer)
    if start < 0:
        start, stop = 0, len(question.answer)
    chosen = torch.tensor([low < stop and high > start for low, high in spans])
    answered = (labels != IGNORED).nonzero()[:, 0]
    if len(answered) != len(chosen):
        raise ValueError(
            f"{len(answer_tokens(processor, question.answer))} answer tokens, {len(chosen)} spans"
        )
    kept = torch.full_like(labels, IGNORED)
    kept[answered[chosen.to(labels.device)]] = labels[answered[chosen.to(labels.device)]]
    return kept


def fitted(picture: bytes, like: bytes) -> bytes:
    """A user's picture, PNG, cropped to the middle and scaled to the size of one that the model knows.

    Raises:
        ValueError: it is no picture.
    """
    size = decode_image(like).size
    try:
        given = decode_image(picture)
    except ValueError:
        raise ValueError(
            "the uploaded file is no picture: choose a PNG or JPEG file, or a person of the list"
        ) from None
    side = min(given.width / size[0], given.height / size[1])
    width, height = round(size[0] * side), round(size[1] * side)
    left, top = (given.width - width) // 2, (given.height - height) // 2
    cut = given.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.LANCZOS)
    written = io.BytesIO()
    cut.save(written, "PNG")
    return written.getvalue()
