"""Gradients by relevance rules: one backward pass that looks through what saturates (LRP for transformers).

Plain gradients at the unscaled model are small where it is sure, and cancel in products. Propagation rules change the
backward pass and leave every value as it is (AttnLRP: Achtibat et al. 2024; RelP: Jafari et al. 2025; attention and norm as
in Ali et al. 2022):

- a non-linearity passes y / x on in place of its slope (identity rule), a norm likewise;
- the product of a gated network passes half to each factor (half rule);
- attention weights are taken for constants.

A neuron's score is then its activation times the gradient that arrives there, summed over positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mipnb import models
from mipnb.models import FFN

_SOFTMAX = (torch.softmax, functional.softmax, Tensor.softmax)


@contextmanager
def relevance_rules(model: nn.Module, ffns: Sequence[FFN]) -> Iterator[None]:
    """Backward passes follow the rules while the context lasts.

    Args:
        model: any model; modules whose class is named ...Norm count as norms.
        ffns: the networks that are scored; those of both branches follow the rules where the family is known.
    """
    with ExitStack() as stack:
        networks = [*ffns, *_known(model)]
        for activation, gated in {ffn.activation: ffn.gated for ffn in networks}.items():
            _hook(stack, activation, _identity(0.5 if gated else 1.0))
        for up in {ffn.inputs[1] for ffn in networks if ffn.gated}:
            _hook(stack, up, lambda module, args, out: _passing(out, out, 0.5))
        for module in model.modules():
            if type(module).__name__.endswith("Norm"):
                _hook(stack, module, _identity(1.0))
        stack.enter_context(_ConstantWeights())
        yield


def _known(model: nn.Module) -> list[FFN]:
    try:
        return [ffn for branch in models.BRANCHES for ffn in models.ffns(model, branch)]
    except (AttributeError, ValueError):
        return []


def _hook(stack: ExitStack, module: nn.Module, hook) -> None:
    stack.callback(module.register_forward_hook(hook).remove)


def _passing(value: Tensor, through: Tensor, slope: Tensor | float) -> Tensor:
    """A value that passes its gradient on to another tensor of its shape, times a slope."""
    return value.detach() + (through - through.detach()) * slope


def _identity(factor: float):
    def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        into = args[0].detach()
        ratio = torch.where(into == 0, torch.zeros_like(into), out.detach() / into)
        return _passing(out, args[0], factor * ratio)

    return hook


class _ConstantWeights(TorchFunctionMode):
    """Attention passes gradients on through the values only."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            query, key, *rest = args
            return func(query.detach(), key.detach(), *rest, **kwargs)
        found = func(*args, **kwargs)
        return found.detach() if func in _SOFTMAX else found
