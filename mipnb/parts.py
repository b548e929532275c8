"""Batches in parts: samples of like length together, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mipnb.batches import Batch, pick


def part_size(max_rows: int, points: int) -> int:
    """Samples of a part: few enough that a pass holds one copy a grid point, unless these would be fewer than four."""
    return max_rows // points if max_rows >= 4 * points else max_rows


def parts_by_length(batch: Batch, size: int) -> Iterator[tuple[Tensor, Batch]]:
    """The batch's samples, at most `size` at a time, short ones first, without columns that are padding in all of them.

    Args:
        batch: right-padded, with one picture a sample or none.
        size: most samples of a part.

    Yields:
        Which samples, int64 (part,), and their batch.
    """
    for rows in lengths(batch).argsort(stable=True).split(size):
        yield rows, trimmed(pick(batch, rows))


def lengths(batch: Batch) -> Tensor:
    """Tokens of each sample without padding: int64 (samples,)."""
    if "attention_mask" not in batch:
        return torch.full((len(batch["labels"]),), batch["labels"].shape[1])
    return batch["attention_mask"].cpu().sum(-1)


def longest(batch: Batch) -> Batch:
    """The batch's longest sample alone."""
    return pick(batch, lengths(batch).argmax()[None])


def dearest(batch: Batch) -> list[Batch]:
    """Samples alone, one of which takes the most memory: the longest and, where pictures differ, that with the most patches."""
    if "image_grid_thw" not in batch:
        return [longest(batch)]
    patches = batch["image_grid_thw"].prod(-1)
    return [longest(batch), trimmed(pick(batch, patches.argmax()[None]))]


def trimmed(batch: Batch) -> Batch:
    """A right-padded batch without the last columns that no sample has tokens in."""
    if "attention_mask" not in batch:
        return batch
    width = int(batch["attention_mask"].any(0).nonzero().max()) + 1
    shape = batch["attention_mask"].shape
    by_token = {key for key, tensor in batch.items() if tensor.shape[:2] == shape and key != "pixel_values"}
    return {key: tensor[:, :width] if key in by_token else tensor for key, tensor in batch.items()}
