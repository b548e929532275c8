"""From questions to tensors: chat template, pictures, answer labels, and repeating a batch by whole samples."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from mipnb.benchmarks import Question
from mipnb.benchmarks.protocols import chat
from mipnb.benchmarks.questions import PICTURED_TASKS
from mipnb.families import Family, family_of

Batch = dict[str, Tensor]
#: what the pictures of a batch become: packed patches with their grids, or one row a picture
_PICTURES = ("pixel_values", "image_grid_thw")
IGNORED = -100


def encode(processor, questions: Sequence[Question], with_answer: bool = True, device: str = "cpu") -> Batch:
    """Encode questions of one modality for the family that the processor belongs to.

    Args:
        processor: of a known family (tokenizer, chat template, image processor), from `load_processor`.
        questions: all with a picture, or all without.
        with_answer: append the answer and its end token, make labels and pad right; else pad left, for generating.

    Returns:
        input_ids, attention_mask and, if the family takes them, token types: int64 (batch, tokens); labels: int64
        (batch, tokens), -100 outside the answer and its end token. With pictures pixel_values float32: (patches, dim)
        with image_grid_thw int64 (batch, 3) for a family that packs them, else (batch, channels, height, width).

    Raises:
        ValueError: no questions, an empty answer where answers are wanted, pictures in some questions only, none in one of a
            task that has pictures, a processor of no known family, or one that cuts a picture into several.
    """
    empty = [f"{q.person_id}: {q.prompt}" for q in questions if not q.answer.strip()]
    if with_answer and empty:
        raise ValueError(
            f"the answer of {empty[:3]} is empty: there is nothing to score or to learn; give one, or leave it out"
        )
    bare = [f"{q.person_id}: {q.prompt}" for q in questions if q.task in PICTURED_TASKS and q.image is None]
    if bare:
        raise ValueError(
            f"{bare[:3]} are image questions without an image (tasks {', '.join(PICTURED_TASKS)} have one): give it, or the "
            "task without pictures"
        )
    pictured = {question.image is not None for question in questions}
    if len(pictured) != 1:
        raise ValueError(
            f"a batch needs questions of one modality; got {len(questions)} with pictures in some, not all"
        )
    record = family_of(processor)
    packed = _prompts(processor, record, questions, pictured == {True})
    types = packed[record.token_types] if record.token_types else [None] * len(questions)
    tails = [answer_tokens(processor, question.answer) if with_answer else [] for question in questions]
    rows = [
        _row(prompt, tail, {record.token_types: kinds} if record.token_types else {})
        for prompt, kinds, tail in zip(packed["input_ids"], types, tails, strict=True)
    ]
    batch = _pad(rows, processor.tokenizer.pad_token_id, left=not with_answer)
    if not with_answer:
        del batch["labels"]
    batch |= {key: torch.as_tensor(np.asarray(packed[key])) for key in _PICTURES if key in packed}
    shown = sum(turn.image is not None for question in questions for turn in (*question.shots, question))
    if n_pictures(batch) not in (None, shown):
        raise ValueError(
            f"the processor made {n_pictures(batch)} pictures of {shown}: expected one a question; switch "
            "off its cutting of pictures into several (do_pan_and_scan, do_image_splitting)"
        )
    return {key: tensor.to(device) for key, tensor in batch.items()}


def prompt_tokens(processor, questions: Sequence[Question]) -> list[list[int]]:
    """Token ids of the prompts of one modality, pictures being placeholders still: nothing is decoded or resized."""
    text, _, options = _texts(processor, questions)
    return processor.tokenizer(text, **options)["input_ids"]


def _texts(
    processor, questions: Sequence[Question]
) -> tuple[list[str], tuple[list[bytes], ...], dict[str, bool]]:
    """What the chat template makes of the prompts, the answers' turn opened; their pictures; how to tokenize them."""
    chats, pictures = zip(*map(chat, questions), strict=True)
    text = processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=True)
    start = processor.tokenizer.bos_token  # with it in the template there would be two start tokens
    return text, pictures, {"add_special_tokens": not (start and text[0].startswith(start))}


def _prompts(processor, record: Family, questions: Sequence[Question], pictured: bool) -> dict:
    """Token ids, token types (lists, unpadded) and pictures of the prompts, the answers' turn opened."""
    text, pictures, options = _texts(processor, questions)
    return processor(
        text=text,
        images=[[decode_image(image) for image in group] for group in pictures] if pictured else None,
        return_mm_token_type_ids=bool(record.token_types),
        **options,
    )


def n_pictures(batch: Batch) -> int | None:
    """How many pictures a batch holds; None without."""
    if "pixel_values" not in batch:
        return None
    return len(batch.get("image_grid_thw", batch["pixel_values"]))


def decode_image(encoded: bytes) -> Image.Image:
    """An RGB picture from its encoded bytes; ValueError if they are no picture."""
    try:
        return Image.open(io.BytesIO(encoded)).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{len(encoded)} bytes do not decode as a picture: {error}") from error


def answer_tokens(processor, answer: str) -> list[int]:
    """The answer's tokens and its end token, with no start token of their own."""
    end = family_of(processor).turn_end or processor.tokenizer.eos_token
    return processor.tokenizer(answer + end, add_special_tokens=False)["input_ids"]


def _row(prompt: list[int], tail: list[int], types: dict[str, list[int]]) -> dict[str, list[int]]:
    return {
        "input_ids": [*prompt, *tail],
        "attention_mask": [1] * (len(prompt) + len(tail)),
        **{name: [*kinds, *([0] * len(tail))] for name, kinds in types.items()},
        "labels": [IGNORED] * len(prompt) + tail,
    }


def _pad(rows: list[dict[str, list[int]]], pad_token_id: int, left: bool) -> Batch:
    fill = dict.fromkeys(rows[0], 0) | {"input_ids": pad_token_id, "labels": IGNORED}
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


def pick(batch: Batch, rows: Tensor) -> Batch:
    """Some samples of a batch, in the order given, each with its picture (one a sample)."""
    rows = rows.to(next(iter(batch.values())).device)
    packed = {"pixel_values"} if "image_grid_thw" in batch else set()
    part = {key: tensor[rows] for key, tensor in batch.items() if key not in packed}
    if packed:
        pictures = batch["pixel_values"].split(batch["image_grid_thw"].prod(-1).tolist())
        part["pixel_values"] = torch.cat([pictures[row] for row in rows.tolist()])
    return part


def take_batch(batch: Batch, start: int, stop: int) -> Batch:
    """Samples start..stop of a batch, with their pictures (one picture a sample); the batch itself if that is all of it."""
    if start == 0 and stop >= len(batch["input_ids"]):
        return batch
    return pick(batch, torch.arange(len(batch["input_ids"]))[start:stop])


def to_device(batch: Batch, device: torch.device | str | int) -> Batch:
    """The batch on a device; itself if it is there already."""
    if all(tensor.device == torch.device(device) for tensor in batch.values()):
        return batch
    return {key: tensor.to(device) for key, tensor in batch.items()}


def answer_logprob(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean log-probability of each sample's answer tokens: float32 (batch,), from (batch, tokens, vocabulary), (batch, tokens).

    exp of it is the length-normalised answer probability F. Prompt and padding (label -100) do not count.
    """
    targets = labels[:, 1:]
    losses = cross_entropy(
        logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    )
    return -losses.sum(-1) / (targets != IGNORED).sum(-1)
