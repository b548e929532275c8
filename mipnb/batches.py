"""From questions to tensors: chat template, picture patches, answer labels, and repeating a batch by whole samples."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from mipnb.benchmarks import Question
from mipnb.benchmarks.protocols import chat

Batch = dict[str, Tensor]
#: keys whose rows are patches or pictures, not samples
_PACKED = ("pixel_values", "image_grid_thw")
IGNORED = -100


def encode(processor, questions: Sequence[Question], with_answer: bool = True, device: str = "cpu") -> Batch:
    """Encode questions of one modality.

    Args:
        processor: a Qwen-VL processor (tokenizer, chat template, image processor).
        questions: all with a picture, or all without.
        with_answer: append the answer and its end token, make labels and pad right; else pad left, for generating.

    Returns:
        input_ids, attention_mask, mm_token_type_ids: int64 (batch, tokens); labels: int64 (batch, tokens), -100 outside
        the answer and its end token; pixel_values float32 (patches, dim) and image_grid_thw int64 (batch, 3) with pictures.

    Raises:
        ValueError: no questions, or pictures in some questions only.
    """
    pictured = {question.image is not None for question in questions}
    if len(pictured) != 1:
        raise ValueError(
            f"a batch needs questions of one modality; got {len(questions)} with pictures in some, not all"
        )
    packed = _prompts(processor, questions, pictured == {True})
    rows = [
        _row(processor.tokenizer, ids, types, question.answer if with_answer else None)
        for ids, types, question in zip(
            packed["input_ids"], packed["mm_token_type_ids"], questions, strict=True
        )
    ]
    batch = _pad(rows, processor.tokenizer.pad_token_id, left=not with_answer)
    if not with_answer:
        del batch["labels"]
    batch |= {key: torch.as_tensor(packed[key]) for key in _PACKED if key in packed}
    return {key: tensor.to(device) for key, tensor in batch.items()}


def _prompts(processor, questions: Sequence[Question], pictured: bool) -> dict:
    chats, pictures = zip(*map(chat, questions), strict=True)
    text = processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=True)
    images = [decode_image(image) for group in pictures for image in group] if pictured else None
    return processor(text=text, images=images, return_mm_token_type_ids=True)


def decode_image(encoded: bytes) -> Image.Image:
    """An RGB picture from its encoded bytes; ValueError if they are no picture."""
    try:
        return Image.open(io.BytesIO(encoded)).convert("RGB")
    except OSError as error:
        raise ValueError(f"{len(encoded)} bytes do not decode as a picture: {error}") from error


def _row(tokenizer, prompt: list[int], types: list[int], answer: str | None) -> dict[str, list[int]]:
    tail = [] if answer is None else tokenizer(answer + tokenizer.eos_token)["input_ids"]
    return {
        "input_ids": [*prompt, *tail],
        "attention_mask": [1] * (len(prompt) + len(tail)),
        "mm_token_type_ids": [*types, *([0] * len(tail))],
        "labels": [IGNORED] * len(prompt) + tail,
    }


def _pad(rows: list[dict[str, list[int]]], pad_token_id: int, left: bool) -> Batch:
    fill = {"input_ids": pad_token_id, "attention_mask": 0, "mm_token_type_ids": 0, "labels": IGNORED}
    width = max(len(row["input_ids"]) for row in rows)

    def padded(values: list[int], value: int) -> list[int]:
        padding = [value] * (width - len(values))
        return padding + values if left else values + padding

    return {key: torch.tensor([padded(row[key], fill[key]) for row in rows]) for key in fill}


def batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Lists of at most `size` questions of one modality each, text first; the order within a modality is kept."""
    for modality in ("text", "image_text"):
        group = [question for question in questions if question.modality == modality]
        yield from (group[start : start + size] for start in range(0, len(group), size))


def patch_owner(image_grid_thw: Tensor) -> Tensor:
    """The picture each packed patch belongs to: int64 (patches,), from image_grid_thw (pictures, 3)."""
    pictures = torch.arange(len(image_grid_thw), device=image_grid_thw.device)
    return pictures.repeat_interleave(image_grid_thw.prod(-1))


def repeat_batch(batch: Batch, times: int) -> Batch:
    """The batch `times` times in a row: samples s0, s1, s0, s1, ..., with each picture's patches kept together."""
    return {key: tensor.repeat(times, *[1] * (tensor.dim() - 1)) for key, tensor in batch.items()}


def take_batch(batch: Batch, start: int, stop: int) -> Batch:
    """Samples start..stop of a batch, with their pictures (one picture a sample)."""
    part = {key: tensor[start:stop] for key, tensor in batch.items() if key not in _PACKED}
    if "image_grid_thw" not in batch:
        return part
    ends = torch.cat([torch.zeros(1, dtype=torch.long), batch["image_grid_thw"].prod(-1).cpu().cumsum(0)])
    pixels = batch["pixel_values"][ends[start] : ends[min(stop, len(ends) - 1)]]
    return part | {"pixel_values": pixels, "image_grid_thw": batch["image_grid_thw"][start:stop]}


def answer_logprob(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean log-probability of each sample's answer tokens: float32 (batch,), from (batch, tokens, vocabulary), (batch, tokens).

    exp of it is the length-normalised answer probability F. Prompt and padding (label -100) do not count.
    """
    targets = labels[:, 1:]
    losses = cross_entropy(
        logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    return -losses.sum(-1) / (targets != IGNORED).sum(-1)
