"""Searches for one path per sample: greedy (Algorithm 1 as practised), exact (as written), one_pass, tangent and shortlist.

In all of them the set of neurons that is scaled together by alpha, and with it every gradient, is what
differs; the score is read off the integrals in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mipnb.integrals import below_one, integrate
from mipnb.probe import Probe
from mipnb.rules import quadrature
from mipnb.scaled_path import ScaledPath
from mipnb.stieltjes import integrate_changes

#: the one point that scales nothing
AT_ONE = quadrature("right", 1)
#: candidates of a layer that `shortlist` scores on their own
SHORTLIST = 16


@dataclass(frozen=True, eq=False)
class Plan:
    """What is computed.

    Attributes:
        grid: points and weights of the integral, see `rules.quadrature`; None: points by sample, see `stieltjes`.
        n_steps: grid points m.
        power: power of the gradients: 1 (IGI, Eq. 4) or 2 (IFI, Eq. 6).
        joint: the product of sums as printed, rather than each neuron's own integral.
        top_k: neurons that each layer adds to a sample's path.
        gap: whether to compute, beside the scores, what the completeness gap needs.
    """

    grid: tuple[Tensor, Tensor] | None
    n_steps: int
    power: int
    joint: bool
    top_k: int
    gap: bool


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        values: scores, float32 (samples, layers, n_neurons).
        total: sum of the integrals of all neurons of the scaled set; (samples, layers) for greedy, which has
            a set a layer, (samples,) for one_pass.
        zero: value with that set at zero, same shape.
    """

    values: Tensor
    total: Tensor | None = None
    zero: Tensor | None = None


def top_neurons(values: Tensor, top_k: int) -> Tensor:
    """The highest values of the last dimension, best first, ties by the lower index: int64 (..., top_k).

    Raises:
        ValueError: `top_k` is below 1 or larger than the layer.
    """
    if not 1 <= top_k <= values.shape[-1]:
        raise ValueError(
            f"top_k is {top_k}, a layer has {values.shape[-1]} neurons: choose 1..{values.shape[-1]}"
        )
    return values.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]


def greedy(probe: Probe, plan: Plan) -> Found:
    """Layer after layer, path so far and whole current layer scaled together: one m-step pass a layer."""
    path: list[Tensor] = []
    parts: list[Found] = []
    below = _path_below(probe, plan)
    for layer in range(len(probe.ffns)):
        masks = [*path, probe.ones(probe.samples, probe.n_neurons)]
        wanted = range(layer + 1) if plan.joint or plan.gap else [layer]
        integrals, zero = _one_set(probe, plan, masks, wanted, below)
        values = _joint(probe, path, integrals) if plan.joint else integrals[-1]
        parts.append(Found(values, *_completeness(probe, plan, masks, integrals, zero)))
        path.append(_mask(values, plan.top_k))
        below = _advance(below, path[-1])
    values = torch.stack([part.values for part in parts], dim=1)
    if not plan.gap:
        return Found(values)
    return Found(
        values, *(torch.stack([getattr(part, name) for part in parts], dim=1) for name in ("total", "zero"))
    )


def one_pass(probe: Probe, plan: Plan) -> Found:
    """All neurons of all layers scaled together: every layer's scores from one backward of m steps.

    The joint score reads its path, layer after layer, off the same gradients.
    """
    masks = [probe.ones(probe.samples, probe.n_neurons) for _ in probe.ffns]
    integrals, zero = _one_set(probe, plan, masks, range(len(masks)))
    if not plan.joint:
        return Found(torch.stack(integrals, dim=1), *_completeness(probe, plan, masks, integrals, zero))
    path: list[Tensor] = []
    values: list[Tensor] = []
    for layer in range(len(masks)):
        values.append(_joint(probe, path, integrals[: layer + 1]))
        path.append(_mask(values[-1], plan.top_k))
    return Found(torch.stack(values, dim=1))


def exact(probe: Probe, plan: Plan) -> Found:
    """Every candidate neuron on its own with the path so far: n_neurons m-step passes a layer, batched.

    The complete score of a candidate is its own integral A_i, taken while the path and it alone are scaled.
    """
    return _upwards(probe, plan, _each_alone)


def tangent(probe: Probe, plan: Plan) -> Found:
    """What `exact` finds to first order in the candidate: only the path is scaled, and all candidates stay as they are.

    One m-step pass a layer, of which the first needs one point: no path is below it. Of squared gradients ("ifi") it is no
    first order of a difference, but what the candidate's square adds up to while the path alone is scaled.
    """
    return _upwards(probe, plan, _tangents)


def shortlist(probe: Probe, plan: Plan) -> Found:
    """`tangent`, of which SHORTLIST candidates a layer are then scored each on its own, as by `exact`.

    They are the best by `tangent` and the best with the whole layer scaled, as `greedy` does, in turns: where the model is
    sure, the unscaled slope misses those without which it would not be. The others keep the value of `tangent`, so one of them
    may still be among a layer's best.
    """
    return _upwards(probe, plan, _shortlisted)


def _upwards(probe: Probe, plan: Plan, scored: Callable[..., Tensor]) -> Found:
    """Layer after layer: what `scored` gives of the path so far, (samples, n_neurons), adds its best to the path."""
    path: list[Tensor] = []
    found: list[Tensor] = []
    below = _path_below(probe, plan)
    for _ in probe.ffns:
        found.append(scored(probe, plan, path, below))
        path.append(_mask(found[-1], plan.top_k))
        below = _advance(below, path[-1])
    return Found(torch.stack(found, dim=1))


def _each_alone(probe: Probe, plan: Plan, path: Sequence[Tensor], below: ScaledPath | None) -> Tensor:
    everyone = torch.arange(probe.n_neurons, device=probe.ones(1).device).expand(probe.samples, -1)
    return _alone(probe, plan, path, everyone, below)


def _tangents(probe: Probe, plan: Plan, path: Sequence[Tensor], below: ScaledPath | None) -> Tensor:
    nobody = 0 * probe.ones(probe.samples, probe.n_neurons)
    if path:
        return _of_set(probe, plan, path, nobody, below)
    ((integral,),) = integrate(probe, {0: nobody[None]}, AT_ONE, plan.power, [0])  # nothing is scaled
    return _joint(probe, path, [integral]) if plan.joint else integral


def _of_set(
    probe: Probe, plan: Plan, path: Sequence[Tensor], mask: Tensor, below: ScaledPath | None
) -> Tensor:
    """Scores of the layer after the path, the path and the neurons of a mask scaled together."""
    masks = [*path, mask]
    integrals, _ = _one_set(probe, plan, masks, range(len(masks)) if plan.joint else [len(path)], below)
    return _joint(probe, path, integrals) if plan.joint else integrals[-1]


def _shortlisted(probe: Probe, plan: Plan, path: Sequence[Tensor], below: ScaledPath | None) -> Tensor:
    values = _tangents(probe, plan, path, below)
    whole = _of_set(probe, plan, path, probe.ones(probe.samples, probe.n_neurons), below)
    best = _in_turns(values, whole, min(SHORTLIST, probe.n_neurons))
    return values.scatter(1, best, _alone(probe, plan, path, best, below))


def _in_turns(first: Tensor, second: Tensor, number: int) -> Tensor:
    """So many neurons a row, the best by either score in turns, each once: int64 (samples, number)."""
    turns = [2 * top_neurons(scores, scores.shape[1]).argsort(1) for scores in (first, second)]
    return top_neurons(-torch.minimum(turns[0], turns[1] + 1), number)


def _path_below(probe: Probe, plan: Plan) -> ScaledPath | None:
    """Where scores need no gradient in the path, passes begin at the layer they score; else None."""
    if plan.joint or plan.gap or plan.grid is None:
        return None
    alphas = below_one(plan.grid, probe)[0]
    return ScaledPath.begin(probe, alphas) if len(alphas) else None


def _advance(below: ScaledPath | None, mask: Tensor) -> ScaledPath | None:
    """The same with a mask's neurons of its layer scaled; None after the last layer."""
    if below is None or below.layer + 1 == len(below.probe.ffns):
        return None
    return below.advance(mask)


def _alone(
    probe: Probe, plan: Plan, path: Sequence[Tensor], neurons: Tensor, below: ScaledPath | None
) -> Tensor:
    """Scores of some candidates of the layer after the path, each alone with the path, as many at a time as a pass holds.

    Args:
        probe, plan: as for the searches.
        path: masks (samples, n_neurons) of the layers below.
        neurons: the candidates of each sample, int64 (samples, candidates).
        below: see `_path_below`.
    """
    parts = neurons.split(probe.repeats, dim=1)
    return torch.cat([_candidates(probe, plan, path, part, below) for part in parts], dim=1)


def _candidates(
    probe: Probe, plan: Plan, path: Sequence[Tensor], neurons: Tensor, below: ScaledPath | None
) -> Tensor:
    """The same of candidates that fit in one pass."""
    index = neurons.T[..., None]  # (candidates, samples, 1)
    alone = torch.zeros(*index.shape[:2], probe.n_neurons, device=neurons.device).scatter_(2, index, 1.0)
    masks = [*(mask.expand(len(index), -1, -1) for mask in path), alone]  # (candidates, samples, n_neurons)
    wanted = range(len(masks)) if plan.joint else [len(path)]
    integrals = integrate(probe, _scaled(masks, below), plan.grid, plan.power, wanted, below)
    if not plan.joint:
        return integrals[-1].gather(2, index)[..., 0].T
    at = neurons[probe.owner]  # (positions, candidates)
    own = integrals[-1].gather(2, at.T[..., None])[..., 0].T
    rest = _path_sum(probe, path, integrals).T
    return _product(probe, path, probe.activations[len(path)].gather(1, at), own + rest)


def _one_set(
    probe: Probe, plan: Plan, masks: Sequence[Tensor], wanted: Sequence[int], below: ScaledPath | None = None
) -> tuple[list[Tensor], Tensor | None]:
    """Integrals of a single set, per wanted layer (positions or samples, n_neurons), and its value at zero, if known."""
    if plan.grid is None:
        return integrate_changes(probe, dict(enumerate(masks)), plan.n_steps, plan.power, wanted)
    scaled = _scaled([mask[None] for mask in masks], below)
    found = integrate(probe, scaled, plan.grid, plan.power, wanted, below)
    return [integral[0] for integral in found], None


def _scaled(masks: Sequence[Tensor], below: ScaledPath | None) -> dict[int, Tensor]:
    """The masks that a pass has to apply itself, by layer: all of them, or that of the one layer above those `below`."""
    return dict(enumerate(masks)) if below is None else {below.layer: masks[below.layer]}


def _joint(probe: Probe, path: Sequence[Tensor], integrals: Sequence[Tensor]) -> Tensor:
    """Joint scores (samples, n_neurons) of the layer after the path, from integrals by position."""
    rest = _path_sum(probe, path, integrals)[:, None]
    return _product(probe, path, probe.activations[len(path)], integrals[-1] + rest)


def _product(probe: Probe, path: Sequence[Tensor], activation: Tensor, integral: Tensor) -> Tensor:
    """Product of sums, position by position, then summed over positions: (samples, candidates).

    Args:
        probe: the model and its questions.
        path: masks (samples, n_neurons) of the layers below.
        activation: of the candidates, unscaled, (positions, candidates); the path's are added here.
        integral: of path and candidate together, (positions, candidates).
    """
    rest = _path_sum(probe, path, probe.activations)[:, None]
    return probe.per_sample((activation + rest) * integral)


def _path_sum(probe: Probe, path: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Sum over all the path's neurons by position: (..., positions, n_neurons) -> (..., positions)."""
    parts = [(tensor * mask[probe.owner]).sum(-1) for tensor, mask in zip(tensors, path, strict=False)]
    return sum(parts, torch.zeros_like(tensors[0][..., 0]))


def _completeness(
    probe: Probe, plan: Plan, masks: Sequence[Tensor], integrals: Sequence[Tensor], zero: Tensor | None
) -> tuple:
    """Sum of the set's integrals, value with the set at zero: (samples,) each; () if not asked for."""
    if not plan.gap:
        return ()
    total = sum((integral * mask).sum(-1) for integral, mask in zip(integrals, masks, strict=True))
    return total, probe.value([1 - mask for mask in masks]) if zero is None else zero


def _mask(values: Tensor, top_k: int) -> Tensor:
    """1 for the top_k neurons of each sample, else 0: (samples, n_neurons)."""
    return torch.zeros_like(values).scatter_(-1, top_neurons(values, top_k), 1.0)
