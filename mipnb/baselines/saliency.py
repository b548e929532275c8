"""MMUnlearner's mask: weights that matter more to the forget set than to the retain set (Huo et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mipnb.baselines.settings import Settings
from mipnb.baselines.terms import mean_nll
from mipnb.baselines.training import fast_passes, trainable
from mipnb.batches import Batch, to_device
from mipnb.models import input_device
from mipnb.precision import mixed_precision


def squared_gradients(model: nn.Module, batches: Sequence[Batch], names: Sequence[str]) -> dict[str, Tensor]:
    """Mean over batches of the squared gradient of the answer loss: name -> float32, of the weight's shape."""
    total = {}
    with fast_passes(model), trainable(model, names, Settings()) as weights:
        for batch in batches:
            with mixed_precision():
                loss = mean_nll(model, to_device(batch, input_device(model))).mean()
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, found, strict=True):
                if gradient is not None:
                    total[name] = total.get(name, 0) + gradient.float().square() / len(batches)
    return {
        name: total.get(name, torch.zeros_like(weight, dtype=torch.float32))
        for name, weight in weights.items()
    }


def saliency_masks(
    model: nn.Module, forget: Sequence[Batch], retain: Sequence[Batch], names: Sequence[str], ratio: float
) -> dict[str, Tensor]:
    """Where squared gradients on the forget set are at least `ratio` times those on the retain set: bool a weight.

    A weight that neither set moves is not in the mask.
    """
    one, other = (squared_gradients(model, batches, names) for batches in (forget, retain))
    return {name: (one[name] > 0) & (one[name] >= ratio * other[name]) for name in names}
