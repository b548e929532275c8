"""What greedy passes share from layer to layer: states at every grid point, with the path so far scaled.

The pass that scores a layer differs from the next layer's only from this layer's last linear layer on: it scales all of
the layer, the next scales the path. So each begins where the one before has led the path to.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from mipnb.hooks import gated
from mipnb.probe import Probe
from mipnb.replay import Entry, join, outputs_of, recorded, split


@dataclass(frozen=True, eq=False)
class ScaledPath:
    """Entries to one layer's last linear layer, one a grid point, the layers below scaled at their path neurons.

    Attributes:
        probe: the model and its questions.
        layer: index of the layer.
        alphas: the grid points (points,).
        entries: one a grid point, each with the rows of one copy of the batch.
    """

    probe: Probe
    layer: int
    alphas: Tensor
    entries: Sequence[Entry]

    @classmethod
    def begin(cls, probe: Probe, alphas: Tensor) -> ScaledPath | None:
        """At the first layer, where nothing has been scaled yet; None if passes cannot begin in the middle."""
        start = probe.unscaled.start
        return start and cls(probe, 0, alphas, [start] * len(alphas))

    def at(self, points: Tensor) -> Entry:
        """The entry for copies at some grid points (copies,)."""
        return join([self.entries[point] for point in points.tolist()])

    def advance(self, mask: Tensor) -> ScaledPath:
        """The same for the next layer.

        Args:
            mask: 1 for the neurons of this layer that the path takes along, else 0: float32 (samples, n_neurons).
        """
        found = [
            entry
            for points in torch.arange(len(self.alphas)).split(self.probe.repeats)
            for entry in self._walk(points, 1 + (self.alphas[points][:, None, None] - 1) * mask)
        ]
        return ScaledPath(self.probe, self.layer + 1, self.alphas, found)

    def _walk(self, points: Tensor, gates: Tensor) -> list[Entry]:
        """Entries to the next layer at some grid points, under gates (points, samples, n_neurons)."""
        probe, entry, copies = self.probe, self.at(points), len(points)
        layer, here, there = (
            probe.place.layers[self.layer],
            probe.ffns[self.layer],
            probe.ffns[self.layer + 1],
        )
        own = set(layer.modules())
        below = {module: output for module, output in entry.outputs.items() if module not in own}
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(gated([here], [gates.flatten(0, 1)], probe.owners(copies)))
            stack.enter_context(outputs_of(layer, below))
            found = stack.enter_context(recorded(probe.place, self.layer + 1, there, below, stop=True))
            probe.answer(copies, entry)
        return split(found[0], copies)
