"""Where the positions of an activation lie: patches and picture tokens on the picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from mipnb.batches import Batch
from mipnb.families import family, lookup


def on_patches(model: nn.Module, batch: Batch, activation: Tensor) -> np.ndarray:
    """A vision neuron's activations on one picture: float32 (rows, columns), top left first.

    Args:
        model: of a known family.
        batch: one question with one picture.
        activation: (patches,) if packed, else (1, patches), with a class token before them in some towers.
    """
    record, values = family(model.config.model_type), activation.detach().float().cpu().flatten()
    if not record.packed:
        side = math.isqrt(len(values))
        return values[-side * side :].reshape(side, side).numpy()
    side = lookup(model.config, record.image_tokens)
    _, rows, columns = batch["image_grid_thw"][0].tolist()
    cells = torch.arange(rows * columns).reshape(rows // side, side, columns // side, side)
    cells = cells.permute(0, 2, 1, 3).reshape(-1, side * side)  # (tokens, patches of a token)
    vision = model.config.vision_config
    if getattr(vision, "window_size", None):  # Qwen2.5-VL goes through windows one after the other
        order, _ = get_vision_window_index(
            batch["image_grid_thw"][:1].cpu(), side, vision.window_size, vision.patch_size
        )
        cells = cells[order]
    placed = torch.empty_like(values)
    placed[cells.flatten()] = values
    return placed.reshape(rows, columns).numpy()


def on_tokens(model: nn.Module, batch: Batch, values: Tensor) -> np.ndarray:
    """A language neuron's activations at one picture's tokens (tokens,): float32 (rows, columns)."""
    record, values = family(model.config.model_type), values.detach().float().cpu()
    if record.packed:
        side = lookup(model.config, record.image_tokens)
        _, rows, columns = (batch["image_grid_thw"][0] // side).tolist()
    else:
        rows = columns = math.isqrt(len(values))
    return values.reshape(rows, columns).numpy()
