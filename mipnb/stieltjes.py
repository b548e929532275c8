"""Integration where the value moves: points of each sample's own, weighed by how much the value really changed there.

Where a model is sure, F stays near its end value until most of a layer is gone, and jumps within a small part of [0, 1]:
equal steps miss it. With g_i = dF/dgate_i and F' = sum_i g_i over the scaled set, each neuron's integral is that of its
share of the change,

    A_i = integral g_i d(alpha) = integral (g_i / F') dF        (Riemann-Stieltjes),

and shares change far more slowly with alpha than gradients do. F is looked at without gradients at a few points, [0, 1] is
cut into m bins that see about equal change, and each bin has one gradient, at its middle:

    A_i = sum_b (g_i / F')(alpha_b) * (F(end of b) - F(begin of b)).

The sum over i is F(1) - F(0) by construction, except where a share cannot be had (F' near 0 or against the change: the bin's
weight is then bounded). So here a gap of 0 proves nothing: the error of the scores is to be read against finer steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mipnb.probe import Probe

SCAN = 8  # parts of [0, 1] whose change is looked at first
UNIFORM = 0.2  # share of the bins that is spread over [0, 1] whatever the value does
BOUND = 10.0  # a bin weighs at most this many times its width


def integrate_changes(
    probe: Probe, masks: Mapping[int, Tensor], n_steps: int, power: int, wanted: Sequence[int]
) -> list[Tensor]:
    """Integrals of one set of neurons, scaled together.

    Args:
        probe: the model and its questions.
        masks: per layer, all that is scaled, which neurons are in the set: 0 or 1, float32 (samples, n_neurons).
        n_steps: bins m, each of one gradient.
        power: 1, or 2 for squared gradients. These, and gradients by position (joint scores), add up to nothing known: a
            bin then weighs its width.
        wanted: layers whose integrals are returned.

    Returns:
        Per wanted layer float32 (positions or samples, n_neurons).
    """
    shares = power == 1 and not probe.by_position  # else the sum of the integrals is nothing known
    edges, middles = _bins(probe, masks, n_steps)
    changes = _values(probe, masks, edges).diff(dim=0)
    totals: dict[int, Tensor] = {}
    for part in torch.arange(n_steps, device=edges.device).split(probe.repeats):
        gradients = dict(zip(masks, probe.gradients(_gates(masks, middles[part]), list(masks)), strict=True))
        widths = edges.diff(dim=0)[part]
        weights = _weights(masks, gradients, changes[part], widths) if shares else widths
        for layer in wanted:
            rows = weights[:, probe.owner] if probe.by_position else weights
            found = (rows[..., None] * gradients[layer] ** power).sum(0)
            totals[layer] = totals[layer] + found if layer in totals else found
    return [totals[layer] for layer in wanted]


def _bins(probe: Probe, masks: Mapping[int, Tensor], n_steps: int) -> tuple[Tensor, Tensor]:
    """Ends (m + 1, samples) and middles (m, samples) of bins of about equal change."""
    even = torch.linspace(0, 1, SCAN + 1, device=probe.batch["labels"].device)[:, None]
    alphas = (even**1.5).expand(-1, probe.samples).contiguous()  # most jumps are near 0
    change = _values(probe, masks, alphas).diff(dim=0).abs()
    total = change.sum(0, keepdim=True)
    share = torch.where(total > 0, change / total, torch.full_like(change, 1 / SCAN))
    seen = UNIFORM * even[1:] + (1 - UNIFORM) * share.cumsum(0)
    seen = torch.cat([torch.zeros_like(seen[:1]), seen / seen[-1:]])
    halves = torch.linspace(0, 1, 2 * n_steps + 1, device=seen.device)
    points = _interpolate(halves, seen, alphas)
    return points[::2], points[1::2]


def _interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y (points, samples) as a function of increasing x (points, samples), linear between points: (at, samples)."""
    where = torch.searchsorted(x.T.contiguous(), at.expand(x.shape[1], -1).contiguous()).T.clamp(
        1, len(x) - 1
    )
    low, high = x.gather(0, where - 1), x.gather(0, where)
    part = ((at[:, None] - low) / (high - low)).clamp(0, 1)
    return torch.lerp(y.gather(0, where - 1), y.gather(0, where), part)


def _gates(masks: Mapping[int, Tensor], alphas: Tensor) -> dict[int, Tensor]:
    """Gates (copies, samples, n_neurons) a layer, for points (copies, samples)."""
    return {layer: 1 + (alphas[..., None] - 1) * mask for layer, mask in masks.items()}


def _values(probe: Probe, masks: Mapping[int, Tensor], alphas: Tensor) -> Tensor:
    """The value at points (copies, samples), without gradients: float32 (copies, samples)."""
    found = []
    for part in alphas.split(probe.repeats):
        gates = [gate.flatten(0, 1) for gate in _gates(masks, part).values()]
        found.append(probe.value(gates, copies=len(part)).reshape(len(part), -1))
    return torch.cat(found)


def _weights(
    masks: Mapping[int, Tensor], gradients: Mapping[int, Tensor], changes: Tensor, widths: Tensor
) -> Tensor:
    """change / F', at least 0 and at most BOUND times the bin's width: (copies, samples)."""
    slope = sum((gradients[layer] * mask).sum(-1) for layer, mask in masks.items())
    ratio = torch.where(slope == 0, torch.zeros_like(slope), changes / slope)
    return ratio.clamp(min=0).minimum(BOUND * widths)
