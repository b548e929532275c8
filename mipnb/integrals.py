"""Integrals of gradients over the scale of a set of neurons, many passes at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mipnb.probe import Probe
from mipnb.scaled_path import ScaledPath

Grid = tuple[Tensor, Tensor]


def integrate(
    probe: Probe,
    masks: Mapping[int, Tensor],
    grid: Grid,
    power: int,
    wanted: Sequence[int],
    below: ScaledPath | None = None,
) -> list[Tensor]:
    """sum_k weight_k (gradient at alpha_k)^power, with a set of neurons scaled together by alpha_k and all
    others at 1.

    At alpha = 1 nothing is scaled, whatever the set: that point is read off the one pass that all sets share.

    Args:
        probe: the model and its questions.
        masks: per layer which neurons are in the set: 0 or 1, float32 (sets, samples, n_neurons). Several sets are
            integrated independently of each other. With layers `below` only those of the next.
        grid: points and weights (m,), see `rules.quadrature`.
        power: 1 for integrated gradients (Eq. 4), 2 for the Fisher form (Eq. 6).
        wanted: layers whose integrals are returned.
        below: the layers below, already scaled at every grid point below 1.

    Returns:
        Per wanted layer float32 (sets, positions or samples, n_neurons); positions where the probe goes by position.
    """
    (alphas, weights), last = below_one(grid, probe), weight_at_one(grid)
    sets = len(next(iter(masks.values())))
    totals = _shared(probe, sets, last, power, wanted)
    jobs = torch.arange(sets * len(alphas), device=alphas.device)  # (set, grid point) pairs
    for part in jobs.split(probe.repeats) if len(jobs) else ():
        chosen, step = part // len(alphas), part % len(alphas)
        gates = {layer: 1 + (alphas[step][:, None, None] - 1) * mask[chosen] for layer, mask in masks.items()}
        found = probe.gradients(gates, wanted, below and below.at(step))
        totals = totals or [gradient.new_zeros(sets, *gradient.shape[1:]) for gradient in found]
        for total, gradient in zip(totals, found, strict=True):
            total.index_add_(0, chosen, weights[step][:, None, None] * gradient**power)
    return totals


def below_one(grid: Grid, probe: Probe) -> Grid:
    """The points and weights below 1, on the probe's device."""
    alphas, weights = grid
    device = probe.batch["labels"].device
    return alphas[alphas < 1].to(device), weights[alphas < 1].to(device)


def weight_at_one(grid: Grid) -> float:
    """The weight of the point 1; 0 if it is none of the grid's."""
    alphas, weights = grid
    return float(weights[alphas == 1].sum())


def _shared(probe: Probe, sets: int, weight: float, power: int, wanted: Sequence[int]) -> list[Tensor]:
    """What the point 1 adds to every set's integrals; an empty list if it is none of the grid's."""
    if not weight:
        return []
    gradients = [probe.unscaled.gradients[layer] for layer in wanted]
    return [(weight * gradient**power).expand(sets, -1, -1).clone() for gradient in gradients]
