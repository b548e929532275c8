"""Integration where the value moves: points of each sample's own, weighed by how much the value really changed there.

Where a model is sure, F stays near its end value until most of a layer is gone, and jumps within a small part of [0, 1]:
equal steps miss it. With g_i = dF/dgate_i and F' = sum_i g_i over the scaled set, each neuron's integral is that of its
share of the change,

    A_i = integral g_i d(alpha) = integral (g_i / F') dF        (Riemann-Stieltjes),

and shares change far more slowly with alpha than gradients do. The interval over which F changes most is cut in two, again
and again (a little counts its width): a pass at the cut gives F and its gradients. Within each of the m intervals gradients
follow the trapezoid rule (in the first one, that of its upper end: at 0 there is a value alone), scaled so that they add up
to the change of F:

    A_i = sum over intervals (a, b) of (F(b) - F(a)) * (g_i(a) + g_i(b)) / (F'(a) + F'(b)).

The sum over i is F(1) - F(0) by construction, except where a share cannot be had (F' near 0, or what is left of gradients that
cancel out: the interval's weight is bounded; F' against the change: it weighs its width), and a gap is left that says so. So
here a gap of 0 proves nothing: the error of the scores is to be read against finer steps. It takes no more gradients than a
grid that ends at 1, whose gradients all sets share, and one value at 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mipnb.probe import Probe

FIRST = 0.3  # where the interval at 0 is cut: most jumps are near 0; others are cut in the middle
UNIFORM = 0.2  # of all changes count as spread over [0, 1], so that wide intervals are cut, too: F may rise and fall in them
_LEAST = 1e-30  # of changes: where there is none, the widest interval is cut
BOUND = 10.0  # an interval weighs at most this many times its width
SHARES = 20.0  # and no more than lets the magnitudes of its shares of the change add up to this


@dataclass(frozen=True, eq=False)
class _Point:
    """What is known at one point of each sample: alpha and value (samples,), gradients a layer (None at 0)."""

    alpha: Tensor
    value: Tensor
    gradients: Mapping[int, Tensor] | None


def integrate_changes(
    probe: Probe, masks: Mapping[int, Tensor], n_steps: int, power: int, wanted: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Integrals of one set of neurons, scaled together, and the value with the set at zero.

    Args:
        probe: the model and its questions, not by position; `Probe.at_one` is set.
        masks: per layer, all that is scaled, which neurons are in the set: 0 or 1, float32 (samples, n_neurons).
        n_steps: intervals m, and points with gradients: 1, which all sets share, and m - 1 others.
        power: 1, or 2 for squared gradients. These add up to nothing known: an interval then weighs its width.
        wanted: layers whose integrals are returned.

    Returns:
        Per wanted layer float32 (samples, n_neurons); the value, float32 (samples,).
    """
    points = _ends(probe, masks)
    for _ in range(n_steps - 1):
        points.append(_at(probe, masks, _cut(points)))
    weights = _weights(points, masks if power == 1 else None)
    return [_total(points, weights, layer, power) for layer in wanted], points[0].value


def _ends(probe: Probe, masks: Mapping[int, Tensor]) -> list[_Point]:
    """The points 0, where the set is silent, and 1, where nothing is scaled."""
    one = probe.ones(probe.samples)
    silent = probe.value([1 - mask for mask in masks.values()])
    whole = {layer: probe.unscaled.gradients[layer] for layer in masks}
    return [_Point(0 * one, silent, None), _Point(one, probe.unscaled.value, whole)]


def _at(probe: Probe, masks: Mapping[int, Tensor], alpha: Tensor) -> _Point:
    gates = {layer: (1 + (alpha[:, None] - 1) * mask)[None] for layer, mask in masks.items()}
    value, found = probe.value_and_gradients(gates, list(masks))
    return _Point(alpha, value, {layer: gradient[0] for layer, gradient in zip(masks, found, strict=True)})


def _cut(points: Sequence[_Point]) -> Tensor:
    """Where each sample's interval of the largest change is cut: (samples,)."""
    alphas, order = torch.stack([point.alpha for point in points]).sort(dim=0)
    changes = torch.stack([point.value for point in points]).gather(0, order).diff(dim=0)
    seen = changes.abs().sum(0).clamp(min=_LEAST)
    changes = changes.abs() + UNIFORM * alphas.diff(dim=0) * seen
    largest = changes.argmax(0, keepdim=True)
    low, high = (alphas.gather(0, largest + end)[0] for end in (0, 1))
    return torch.lerp(low, high, torch.where(low == 0, FIRST, 0.5))


def _weights(points: Sequence[_Point], masks: Mapping[int, Tensor] | None) -> Tensor:
    """What each point's gradients weigh: (points, samples); without masks by the widths of the intervals alone."""
    alphas, order = torch.stack([point.alpha for point in points]).sort(dim=0)
    widths = alphas.diff(dim=0)
    lower = torch.cat([torch.zeros_like(widths[:1]), widths[1:] / 2])  # of each interval's lower end
    upper = widths - lower
    if masks is not None:
        changes = torch.stack([point.value for point in points]).gather(0, order).diff(dim=0)
        slopes, sizes = torch.stack([_slopes(point, masks) for point in points], dim=1).gather(
            1, order.expand(2, -1, -1)
        )
        expected, magnitude = (lower * of[:-1] + upper * of[1:] for of in (slopes, sizes))
        scale = changes / expected
        most = (SHARES * changes.abs() / magnitude).clamp(max=BOUND)
        scale = torch.where(scale >= 0, scale.minimum(most), 1)  # against the slope, or no slope: by width
        lower, upper = scale * lower, scale * upper
    none = torch.zeros_like(widths[:1])
    weights = torch.cat([lower, none]) + torch.cat([none, upper])
    return weights.gather(0, order.argsort(0))


def _slopes(point: _Point, masks: Mapping[int, Tensor]) -> Tensor:
    """F' of each sample, and the sum of the magnitudes that it is made of: (2, samples); 0 where there are no gradients."""
    if point.gradients is None:
        return point.value.new_zeros(2, len(point.value))
    parts = (point.gradients[layer] * mask for layer, mask in masks.items())
    return sum(torch.stack([part.sum(-1), part.abs().sum(-1)]) for part in parts)


def _total(points: Sequence[_Point], weights: Tensor, layer: int, power: int) -> Tensor:
    """One layer's integrals: (samples, n_neurons)."""
    return sum(
        weight[:, None] * point.gradients[layer] ** power
        for weight, point in zip(weights, points, strict=True)
        if point.gradients is not None
    )
