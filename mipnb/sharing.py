"""Whether passes over a model may share their beginnings: tried on one sample, not assumed of a family."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import nn

from mipnb import models
from mipnb.answers import answer_value
from mipnb.hooks import gated
from mipnb.memory import is_out_of_memory
from mipnb.models import FFN
from mipnb.parts import longest
from mipnb.probe import Probe
from mipnb.replay import layout
from mipnb.scaled_path import ScaledPath

#: what a model that cannot be entered in the middle may raise: it lacks an input, a state or a shape
_REFUSALS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_tried: WeakKeyDictionary[nn.Module, dict[tuple, bool]] = WeakKeyDictionary()


def shared(probe: Probe) -> Probe:
    """The same probe, its passes beginning in the middle where that gives the same values; else as it is.

    Tried once a model, branch and kind of batch: two copies of one sample, entered at the first and at the last layer,
    must have the value of the plain pass.
    """
    place = layout(probe.model, probe.ffns)
    if place is None:
        return probe
    last = _last_language(probe.model)
    other = replace(
        probe, place=place, last=None if last is None or last.output is probe.ffns[0].output else last
    )
    tried = _tried.setdefault(probe.model, {})
    key = (*(ffn.name for ffn in probe.ffns), *sorted(probe.batch))
    if key not in tried:
        tried[key] = _agrees(probe, other)
    return other if tried[key] else probe


def _last_language(model: nn.Module) -> FFN | None:
    try:
        return models.ffns(model, "text")[-1]
    except (AttributeError, ValueError):
        return None


def _agrees(plain: Probe, other: Probe) -> bool:
    """Whether one sample has the same log-likelihood either way, its first network half open and every network open.

    F of a sure model hardly moves, whatever is computed: the likelihood's logarithm tells.
    """
    one = {"batch": longest(plain.batch), "at_one": False, "by_position": False, "max_rows": 2}
    plain, other = (replace(probe, **one, target="log_likelihood") for probe in (plain, other))
    half = plain.ones(1, plain.n_neurons) / 2
    expected = (plain.value([half]), plain.unscaled.value)
    try:
        below = ScaledPath.begin(other, torch.full((2,), 0.5, device=half.device))
        first = other.value([half.expand(2, -1)], copies=2)
        while below is not None and below.layer < len(other.ffns) - 1:
            below = below.advance(torch.zeros_like(half))
        with torch.no_grad():
            last = other.answer(2, below and below.at(torch.arange(2)))
    except _REFUSALS as error:
        if is_out_of_memory(error):
            raise
        return False
    found = zip((first, last), expected, strict=True)
    return all(torch.allclose(value, own.expand(2), rtol=1e-3, atol=1e-5) for value, own in found)


def reached(probe: Probe) -> list[bool]:
    """Per layer, whether the answer of one sample depends on it through the autograd graph."""
    one = replace(probe, batch=longest(probe.batch), place=None, last=None, by_position=False)
    gates = [one.ones(1, one.n_neurons).requires_grad_() for _ in one.ffns]
    with gated(one.ffns, gates, one.owners(1)):
        value = answer_value(one.model, one.batch, one.target).sum()
    if not value.requires_grad:
        return [False] * len(gates)
    return [gradient is not None for gradient in torch.autograd.grad(value, gates, allow_unused=True)]
