"""Batches in parts: samples of like length together, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mipnb.batches import Batch


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


def pick(batch: Batch, rows: Tensor) -> Batch:
    """Some samples of a batch, in the order given, each with its picture (one a sample)."""
    rows = rows.to(batch["labels"].device)
    packed = {"pixel_values"} if "image_grid_thw" in batch else set()
    part = {key: tensor[rows] for key, tensor in batch.items() if key not in packed}
    if packed:
        pictures = batch["pixel_values"].split(batch["image_grid_thw"].prod(-1).tolist())
        part["pixel_values"] = torch.cat([pictures[row] for row in rows.tolist()])
    return part


def trimmed(batch: Batch) -> Batch:
    """A right-padded batch without the last columns that no sample has tokens in."""
    if "attention_mask" not in batch:
        return batch
    width = int(batch["attention_mask"].any(0).nonzero().max()) + 1
    shape = batch["attention_mask"].shape
    by_token = {key for key, tensor in batch.items() if tensor.shape[:2] == shape and key != "pixel_values"}
    return {key: tensor[:, :width] if key in by_token else tensor for key, tensor in batch.items()}
