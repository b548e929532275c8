"""Locating without anything shared: what the searches have to agree with, and what their cost is held against.

Every layer and every grid point is a pass of its own over the whole model, as the method is usually coded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from mipnb.answers import answer_value
from mipnb.batches import Batch, patch_owner, repeat_batch
from mipnb.hooks import gated, undisturbed
from mipnb.models import FFN
from mipnb.searches import top_neurons


def plain_greedy(
    model: nn.Module,
    batch: Batch,
    ffns: Sequence[FFN],
    grid: tuple[Tensor, Tensor],
    *,
    power: int = 1,
    target: str = "probability",
    top_k: int = 5,
    packed: bool = False,
    max_rows: int = 64,
) -> Tensor:
    """Complete greedy scores, layer by layer: float32 (samples, layers, n_neurons).

    Args:
        model, batch, ffns, target, top_k, max_rows: as for `attribution.attribute`.
        grid: points and weights, see `rules.quadrature`.
        power: 1 for igi, 2 for ifi.
        packed: whether activations are packed patches.
    """
    found: list[Tensor] = []
    masks: list[Tensor] = []
    with undisturbed(model), torch.enable_grad():
        for _ in ffns:
            whole = torch.ones(len(batch["labels"]), ffns[0].n_neurons, device=batch["labels"].device)
            found.append(
                _integral(model, batch, ffns, [*masks, whole], grid, power, target, packed, max_rows)
            )
            masks.append(torch.zeros_like(whole).scatter_(-1, top_neurons(found[-1], top_k), 1.0))
    return torch.stack(found, dim=1)


def _integral(
    model: nn.Module,
    batch: Batch,
    ffns: Sequence[FFN],
    masks: Sequence[Tensor],
    grid,
    power,
    target,
    packed,
    max_rows,
) -> Tensor:
    """The last mask's layer's integral: (samples, n_neurons)."""
    total = torch.zeros_like(masks[-1])
    copies = max(1, max_rows // len(total))
    for alphas, weights in zip(*(part.to(total.device).split(copies) for part in grid), strict=True):
        rows = repeat_batch(batch, len(alphas))
        gates = [(1 + (alphas[:, None, None] - 1) * mask).flatten(0, 1) for mask in masks]
        gates[-1].requires_grad_()
        with gated(ffns, gates, patch_owner(rows["image_grid_thw"]) if packed else None):
            value = answer_value(model, rows, target)
        (gradient,) = torch.autograd.grad(value.sum(), gates[-1:])
        total += (weights[:, None, None] * gradient.reshape(len(alphas), *total.shape) ** power).sum(0)
    return total


def bare_passes(
    model: nn.Module,
    batch: Batch,
    ffns: Sequence[FFN],
    n_steps: int,
    target: str = "probability",
    max_rows: int = 64,
) -> None:
    """m copies of a batch forward, and backward to the activations of all the networks; nothing is scaled or kept."""
    copies = max(1, max_rows // len(batch["labels"]))
    with undisturbed(model), torch.enable_grad():
        for part in torch.arange(n_steps).split(copies):
            seen: list[Tensor] = []
            with ExitStack() as stack:
                for ffn in ffns:
                    stack.callback(ffn.output.register_forward_pre_hook(_opening(seen)).remove)
                value = answer_value(model, repeat_batch(batch, len(part)), target)
            torch.autograd.grad(value.sum(), seen, allow_unused=True)


def _opening(seen: list[Tensor]):
    """A hook that starts the graph at the first activation and notes all of them."""

    def hook(module: nn.Module, args: tuple) -> tuple:
        seen.append(args[0] if args[0].requires_grad else args[0].detach().requires_grad_())
        return (seen[-1], *args[1:])

    return hook
