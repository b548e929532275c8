"""Several batches in one pass through the model, and gradients that add up pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from mipnb.batches import _PICTURES, IGNORED, Batch


def joined(batches: Sequence[Batch]) -> Batch:
    """The samples of several batches of one modality as one batch: shorter ones are padded on the right, as answers are.

    Args:
        batches: encoded with answers, with the same keys; pictures' tensors have pictures or patches first.
    """
    if len(batches) == 1:
        return batches[0]
    width = max(batch["input_ids"].shape[1] for batch in batches)
    wide = [_wide(batch, width) for batch in batches]
    return {key: torch.cat([batch[key] for batch in wide]) for key in wide[0]}


def _wide(batch: Mapping[str, Tensor], width: int) -> Batch:
    """So many tokens a sample. Padding repeats the last token, which is never a picture's, under a mask of zeros."""
    shape, ids = batch["input_ids"].shape, batch["input_ids"]
    by_token = {key for key, tensor in batch.items() if tensor.shape == shape and key not in _PICTURES}
    fill = {"labels": IGNORED}
    found = dict(batch)
    for key in by_token:
        found[key] = pad(batch[key], (0, width - shape[1]), value=fill.get(key, 0))
    found["input_ids"] = torch.cat([ids, ids[:, -1:].expand(-1, width - shape[1])], dim=1)
    return found


def shares(rows: slice, batches: Sequence[Batch]) -> Iterator[tuple[int, slice, slice]]:
    """Whose samples some rows of joined batches are: index of the batch, rows of it, and where these are among the rows.

    Batches without any of them are left out.
    """
    first = 0
    for index, batch in enumerate(batches):
        size = len(batch["input_ids"])
        start, stop = max(rows.start - first, 0), min(rows.stop - first, size)
        if start < stop:
            at = start + first - rows.start
            yield index, slice(start, stop), slice(at, at + stop - start)
        first += size


def add_gradients(loss: Tensor, weights: Sequence[Tensor]) -> None:
    """Add a loss's gradients to the weights' own: all or, if memory runs out, none."""
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
        if gradient is not None:
            weight.grad = gradient if weight.grad is None else weight.grad + gradient
