"""Vanilla states of training batches in one file that several processes have in memory: who needs them first computes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from mipnb.batches import Batch

__all__ = ["SharedStates"]


class SharedStates:
    """States by `id` of their batch, as a dictionary keeps them (`pools.States`), for all processes that open the file.

    Two processes that compute the same states at the same time write the same numbers. Room is taken for all batches; the disk
    holds those that were computed.

    Args:
        file: made if it is not there; one beside it says whose states are in it.
        batches: the same in every process, in the same order.
        width: hidden dimensions; states are float32 (batch, tokens, width).
    """

    def __init__(self, file: Path, batches: Sequence[Batch], width: int) -> None:
        shapes = [(*batch["input_ids"].shape, width) for batch in batches]
        ends = list(accumulate(map(math.prod, shapes)))
        self._values = torch.from_file(str(file), shared=True, size=ends[-1], dtype=torch.float32)
        self._there = torch.from_file(
            str(file.with_suffix(".there")), shared=True, size=len(batches), dtype=torch.uint8
        )
        parts = self._values.split([math.prod(shape) for shape in shapes])
        self._places = {
            id(batch): (index, part.view(shape))
            for index, (batch, part, shape) in enumerate(zip(batches, parts, shapes, strict=True))
        }

    def get(self, which: int) -> Tensor | None:
        """The states of a batch; None if nobody has computed them yet."""
        index, values = self._places[which]
        return values if self._there[index] else None

    def __setitem__(self, which: int, states: Tensor) -> None:
        index, values = self._places[which]
        values.copy_(states)
        self._there[index] = 1  # last: nobody reads what is half written
