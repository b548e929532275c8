"""The language model's own inputs: questions with pictures, after the pictures have become token states.

Where only language layers are scaled, every pass but the first can begin with them and leave the vision tower alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mipnb.batches import Batch
from mipnb.replay import Layout

_KEYS = ("inputs_embeds", "attention_mask", "position_ids")


@contextmanager
def language_calls(place: Layout | None, batch: Batch) -> Iterator[list[dict[str, Any]]]:
    """Note what the module that runs the layers is called with, where pictures have gone into it."""
    calls: list[dict[str, Any]] = []

    def note(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        states = kwargs.get("inputs_embeds")
        if isinstance(states, Tensor) and states.shape[:2] == batch["labels"].shape:
            calls.append({key: value for key, value in kwargs.items() if _holds_tensors(value)})

    if place is None or "pixel_values" not in batch:
        yield calls
        return
    hook = place.parent.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def language_inputs(batch: Batch, calls: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to call the model with after a first pass, its token states if they are known, else the batch; and what the module
    that runs the layers needs beside that (`beside`), such as what pictures add in deeper layers.
    """
    if len(calls) != 1:
        return batch, {}
    own = {key: value for key, value in calls[0].items() if key in _KEYS}
    return {**own, "labels": batch["labels"]}, {k: v for k, v in calls[0].items() if k not in _KEYS}


@contextmanager
def beside(place: Layout | None, inputs: dict[str, Any]) -> Iterator[None]:
    """The module that runs the layers is called with these, too, where it is called without them."""
    if place is None or not inputs:
        yield
        return

    def add(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, kwargs | {key: value for key, value in inputs.items() if kwargs.get(key) is None}

    hook = place.parent.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def repeat_inputs(inputs: dict[str, Any], times: int, rows: int) -> dict[str, Any]:
    """The inputs of so many rows `times` times: samples s0, s1, s0, s1, ..., with each picture's patches kept together."""
    return {key: _repeat(value, times, rows, key) for key, value in inputs.items()}


def _repeat(value: Any, times: int, rows: int, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _repeat(part, times, rows, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_repeat(part, times, rows, key) for part in value]
    if not isinstance(value, Tensor):
        return value
    axis = value.dim() - 2 if key == "position_ids" else 0  # (3, batch, tokens) in Qwen's families
    if key in (*_KEYS[1:], "full_attention", "sliding_attention") and value.shape[axis] != rows:
        return value  # one for all rows
    return torch.cat([value] * times, dim=axis)


def _holds_tensors(value: Any) -> bool:
    parts = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    )
    return any(isinstance(part, Tensor) for part in parts)
