"""Rankings of a branch's neurons, and what is cut from them: the same numbers per layer for every choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mipnb.paths import NeuronPath
from mipnb.searches import top_neurons


@dataclass(frozen=True, eq=False)
class Ranked:
    """All neurons of a branch, ranked.

    Attributes:
        choice: how it was made: "path", "random", "activation", ...
        values: the higher the earlier it is taken, (layers, n_neurons).
        draw: which of several random ones.
    """

    choice: str
    values: Tensor
    draw: int = 0

    def top(self, sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The best `sizes[layer]` neurons of each layer, ascending.

        Raises:
            ValueError: another number of layers, or more neurons than a layer has.
        """
        if len(sizes) != len(self.values):
            raise ValueError(f"{len(sizes)} sizes for a ranking of {len(self.values)} layers")
        picked = (
            top_neurons(row, size).tolist() if size else []
            for row, size in zip(self.values, sizes, strict=True)
        )
        return tuple(tuple(sorted(neurons)) for neurons in picked)

    def path(self, branch: str, sizes: Sequence[int], fingerprint: str, benchmark: str = "") -> NeuronPath:
        """What is cut from the ranking, as a path."""
        parameters = {"choice": self.choice, "draw": self.draw}
        return NeuronPath(branch, self.top(sizes), self.values.shape[1], fingerprint, benchmark, parameters)


def given(path: NeuronPath, choice: str = "path") -> Ranked:
    """A path as a ranking: its own neurons first, all alike, then all others; to be cut at the path's own sizes."""
    values = torch.zeros(len(path.layers), path.n_neurons)
    for layer, neurons in enumerate(path.layers):
        values[layer, list(neurons)] = 1.0
    return Ranked(choice, values)


def even_sizes(k: int, layers: int, n_neurons: int) -> tuple[int, ...]:
    """k neurons a layer; all of them where a layer has fewer."""
    return (min(k, n_neurons),) * layers


def weighted_sizes(weights: Sequence[float], k: int, n_neurons: int) -> tuple[int, ...]:
    """As many neurons in all as k a layer, divided among the layers by weight (largest remainders).

    Args:
        weights: of the layers, at least 0; all 0 counts as all equal.
        k: mean number a layer.
        n_neurons: of a layer; what a full layer cannot take goes to the others.
    """
    share = torch.tensor(weights, dtype=torch.float64).clamp(min=0)
    share = share if share.sum() > 0 else torch.ones_like(share)
    total, sizes = min(k, n_neurons) * len(share), torch.zeros(len(share), dtype=torch.long)
    while (left := total - int(sizes.sum())) > 0:
        free = torch.where(sizes < n_neurons, share, torch.zeros_like(share))
        if free.sum() == 0:
            free = (sizes < n_neurons).double()
        wanted = left * free / free.sum()
        sizes = (sizes + wanted.long()).clamp(max=n_neurons)
        rest = torch.where(sizes < n_neurons, wanted - wanted.long(), torch.full_like(wanted, -1))
        count = min(total - int(sizes.sum()), int((rest > 0).sum()))
        sizes[rest.sort(descending=True, stable=True).indices[:count]] += 1
    return tuple(sizes.tolist())
