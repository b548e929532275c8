"""Path neurons with weights of their own, beside a model that stays vanilla: no copy, no whole gradients.

A neuron is its rows in the input layers (with their biases) and its column in the output layer. An *overlay*
holds new values for the path's neurons as small tensors. While it is on, every feed-forward network's output
gets the neurons' new contribution in place of the old one; while it is off, the model is the vanilla
("frozen") model, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mipnb.edits import WeightSlice
from mipnb.models import FFN, ffns
from mipnb.paths import NeuronPath


@dataclass(eq=False)
class NeuronWeights:
    """New weights of k neurons of one feed-forward network, float32, apart from the model.

    Attributes:
        ffn: where they belong.
        layer: the layer's index in its branch.
        branch: "text" or "vision".
        neurons: int64 (k,).
        rows: one (k, d_in) tensor an input layer.
        biases: one (k,) tensor, or None, an input layer.
        columns: (d_out, k).
    """

    ffn: FFN
    layer: int
    branch: str
    neurons: Tensor
    rows: list[Tensor]
    biases: list[Tensor | None]
    columns: Tensor

    @classmethod
    def copied(cls, ffn: FFN, layer: int, branch: str, neurons: Sequence[int]) -> NeuronWeights:
        """A float32 copy of the model's own values."""
        index = torch.tensor(sorted(neurons), device=ffn.output.weight.device)
        rows = [_copy(source.weight[index]) for source in ffn.inputs]
        biases = [None if source.bias is None else _copy(source.bias[index]) for source in ffn.inputs]
        return cls(ffn, layer, branch, index, rows, biases, _copy(ffn.output.weight[:, index]))

    def silence(self) -> None:
        """Make the neurons' activations zero and leave them able to learn (Eq. 10).

        Gated: the last input layer's rows (`up_proj`) and their biases, since act(gate) * 0 = 0 while gate,
            up and column can
        all get a gradient again after the first step. Ungated: the output columns, since an activation of 0
        is not zero for every non-linearity.
        """
        if not self.ffn.gated:
            self.columns.zero_()
            return
        self.rows[-1].zero_()
        if self.biases[-1] is not None:
            self.biases[-1].zero_()

    def tensors(self) -> list[Tensor]:
        """All the small tensors, for an optimiser."""
        return [*self.rows, *(bias for bias in self.biases if bias is not None), self.columns]

    def activation(self, inputs: Tensor) -> Tensor:
        """The k neurons' activations under the new weights: float32 (..., k) from (..., d_in)."""
        parts = [linear(inputs.float(), row, bias) for row, bias in zip(self.rows, self.biases, strict=True)]
        first = self.ffn.activation(parts[0])
        return first * parts[1] if self.ffn.gated else first

    def slices(self) -> list[WeightSlice]:
        """Old and new values for every weight, in the model's dtype."""
        found = [self._slice(self.ffn.output_name + ".weight", 1, self.ffn.output.weight, self.columns)]
        for name, source, row, bias in zip(
            self.ffn.input_names, self.ffn.inputs, self.rows, self.biases, strict=True
        ):
            found.append(self._slice(name + ".weight", 0, source.weight, row))
            if bias is not None:
                found.append(self._slice(name + ".bias", 0, source.bias, bias))
        return found

    def _slice(self, name: str, axis: int, weight: Tensor, new: Tensor) -> WeightSlice:
        old = weight.detach().index_select(axis, self.neurons).cpu()
        return WeightSlice(name, axis, self.neurons.cpu(), old, new.detach().to(old, copy=True))


def _copy(values: Tensor) -> Tensor:
    return values.detach().to(torch.float32, copy=True)


class Overlay:
    """The new weights of all path neurons, put over a model by hooks that always come off."""

    def __init__(self, weights: list[NeuronWeights]) -> None:
        self.weights = weights

    @contextmanager
    def on(self) -> Iterator[None]:
        """The edited model, for the length of a `with` block; outside it the model is vanilla."""
        handles = [handle for weights in self.weights for handle in _attach(weights)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def slices(self) -> tuple[WeightSlice, ...]:
        """The overlay as old and new rows and columns of the model's weights."""
        return tuple(part for weights in self.weights for part in weights.slices())


def _attach(weights: NeuronWeights) -> list:
    """Hooks that note the network's input, and exchange the neurons' contribution in its output."""
    seen: list[Tensor] = []
    old_columns = weights.ffn.output.weight.detach()[:, weights.neurons].float()

    def note(module: nn.Module, arguments: tuple) -> None:
        seen[:] = [arguments[0]]

    def exchange(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
        new = linear(weights.activation(seen.pop()), weights.columns)
        old = linear(arguments[0][..., weights.neurons].float(), old_columns)
        return output + (new - old).to(output.dtype)

    first, last = weights.ffn.inputs[0], weights.ffn.output
    return [first.register_forward_pre_hook(note), last.register_forward_hook(exchange)]


def overlay(model: nn.Module, paths: Sequence[NeuronPath], silent: bool) -> Overlay:
    """Weights of the paths' neurons, as the model has them, or silenced.

    Args:
        model: the vanilla model.
        paths: at most one a branch; layers without neurons are left out.
        silent: start from the pruned neurons (Eq. 10).

    Raises:
        ValueError: a path of another model, two paths of one branch, a layer or neuron that does not exist,
            no neurons.
    """
    branches = [path.branch for path in paths]
    if len(set(branches)) != len(branches):
        raise ValueError(f"paths of branches {branches}: expected at most one a branch; unite them first")
    weights = [part for path in paths for part in _path_weights(model, path)]
    if not weights:
        raise ValueError(f"the {len(paths)} paths given hold no neurons: there is nothing to edit")
    for part in weights:
        if silent:
            part.silence()
    return Overlay(weights)


def _path_weights(model: nn.Module, path: NeuronPath) -> list[NeuronWeights]:
    path.check(model)
    found = ffns(model, path.branch)
    if len(path.layers) > len(found):
        raise ValueError(f"the {path.branch} path has {len(path.layers)} layers, the model {len(found)}")
    return [
        NeuronWeights.copied(ffn, layer, path.branch, neurons)
        for layer, (ffn, neurons) in enumerate(zip(found, path.layers, strict=False))
        if len(neurons)
    ]
