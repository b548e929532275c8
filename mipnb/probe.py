"""The integrand: a model asked one batch of questions with gates on its neurons, and gradients of the answer
in them.

Samples and grid points go through the model together: a pass holds `repeats` copies of the batch, each copy
by whole sample and whole picture, each with its own gates. What all passes share is computed once, by the first of
them, which scales nothing: picture features where only the language model is scaled, the states up to the first
network's last linear layer, and the gradients at the grid point 1. The last language layer's network works at the
positions before answer tokens only, since nothing else depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mipnb.answers import answer_positions, answer_value, narrow_value
from mipnb.batches import Batch, patch_owner
from mipnb.hooks import captured, gated
from mipnb.language import beside, language_calls, language_inputs, repeat_inputs
from mipnb.models import FFN
from mipnb.replay import Entry, Layout, entered, join, recorded


@dataclass(frozen=True, eq=False)
class Unscaled:
    """The pass with every gate at 1, and what later passes take from it.

    Attributes:
        value: of each sample, float32 (samples,).
        activations: original activations w~ of every layer, float32 (positions, n_neurons); None unless scores go by
            position. Padding is among them, and does not count: no answer token attends to it, so its gradients are 0.
        gradients: of every layer, as `Probe.gradients` gives them for one copy, first dimension left out; None unless 1
            is a grid point.
        start: the entry to the first layer's last linear layer; None where passes cannot begin there.
        inputs, beside: of later passes, see `language.language_inputs`.
    """

    value: Tensor
    activations: list[Tensor] | None
    gradients: list[Tensor] | None
    start: Entry | None
    inputs: Batch
    beside: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Probe:
    """One batch of questions, put to a model whose neurons of one branch are gated.

    Attributes:
        model: in eval mode, with no parameter that takes a gradient (`hooks.undisturbed`).
        ffns: the branch's networks, first layer first, all with the same number of neurons.
        batch: encoded questions with labels.
        target: what is differentiated, see `answer_value`.
        packed: whether the branch's activations are packed patches (Qwen's vision tower).
        max_rows: the most rows (samples x copies) of one pass.
        by_position: differentiate in each position's activation, dF/dw_{n,t}; else in the gates, dF/dgate_n.
        at_one: whether the gradients at the grid point 1 are wanted.
        place: where the networks sit (`replay.layout`), if passes may begin in the middle; None: every pass is plain.
        last: the network of the last language layer, if it may be narrowed to the answer's positions.
    """

    model: nn.Module
    ffns: Sequence[FFN]
    batch: Batch
    target: str
    packed: bool
    max_rows: int
    by_position: bool = False
    at_one: bool = False
    place: Layout | None = None
    last: FFN | None = None

    @property
    def samples(self) -> int:
        """Number of samples of the batch."""
        return len(self.batch["labels"])

    @property
    def n_neurons(self) -> int:
        """Number of neurons of every layer."""
        return self.ffns[0].n_neurons

    @property
    def repeats(self) -> int:
        """Copies of the batch that one pass may hold."""
        return max(1, self.max_rows // self.samples)

    def ones(self, *shape: int) -> Tensor:
        """Float32 ones on the batch's device."""
        return torch.ones(*shape, device=self.batch["labels"].device)

    @cached_property
    def unscaled(self) -> Unscaled:
        """The pass that scales nothing; made once."""
        gates = [self.ones(self.samples, self.n_neurons).requires_grad_(self.at_one) for _ in self.ffns]
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(self.at_one))
            calls = stack.enter_context(language_calls(self.place, self.batch))
            start = stack.enter_context(recorded(self.place, 0, self.ffns[0])) if self.place else []
            seen = stack.enter_context(captured(self.ffns)) if self.by_position else None
            scaled = stack.enter_context(gated(self.ffns, gates if self.at_one else [], self.owners(1)))
            value = self._value(self.batch, narrow=not self.by_position)
        gradients = self._gradients(value, scaled if self.by_position else gates, 1) if self.at_one else None
        kept = seen and [activation.float().reshape(-1, self.n_neurons) for activation in seen]
        found = gradients and [gradient[0] for gradient in gradients]
        inputs = language_inputs(self.batch, calls)
        return Unscaled(value.detach(), kept, found, start[0] if start else None, *inputs)

    def value(self, gates: Sequence[Tensor] = (), copies: int = 1, entry: Entry | None = None) -> Tensor:
        """Value of every row under gates (copies x samples, n_neurons) for the first layers: float32 (rows,)."""
        if not gates:
            return self.unscaled.value
        entry = self.start(copies) if entry is None else entry
        with torch.no_grad(), gated(self.ffns, gates, self.owners(copies)):
            return self.answer(copies, entry)

    def gradients(
        self, gates: Mapping[int, Tensor], wanted: Sequence[int], entry: Entry | None = None
    ) -> list[Tensor]:
        """Gradients of every row's value, for several copies of the batch at once.

        Args:
            gates: per gated layer (copies, samples, n_neurons), float32; others are at 1.
            wanted: gated layers to differentiate in; the graph begins at the first of them.
            entry: where the pass begins, with the rows of all copies; by default at the first layer.

        Returns:
            Per wanted layer float32 (copies, positions, n_neurons) or (copies, samples, n_neurons). A layer
            that the answer does not depend on (beyond the feature layer of a vision tower) gets zeros.
        """
        return self.value_and_gradients(gates, wanted, entry)[1]

    def value_and_gradients(
        self, gates: Mapping[int, Tensor], wanted: Sequence[int], entry: Entry | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The same with every row's value, float32 (rows,), beside the gradients."""
        copies = len(next(iter(gates.values())))
        leaves = {layer: gate.flatten(0, 1).requires_grad_(layer in wanted) for layer, gate in gates.items()}
        networks = [self.ffns[layer] for layer in leaves]
        entry = self.start(copies) if entry is None else entry
        with gated(networks, list(leaves.values()), self.owners(copies)) as activations:
            value = self.answer(copies, entry)
        at = dict(zip(leaves, activations, strict=True)) if self.by_position else leaves
        return value.detach(), self._gradients(value, [at[layer] for layer in wanted], copies)

    def _gradients(self, value: Tensor, at: Sequence[Tensor], copies: int) -> list[Tensor]:
        if not value.requires_grad:  # the model cuts the graph
            at = [tensor.detach().requires_grad_() for tensor in at]
            value = sum(tensor.sum() for tensor in at) * 0
        found = torch.autograd.grad(value.sum(), at, allow_unused=True, materialize_grads=True)
        return [self._whole(gradient.float()).reshape(copies, -1, self.n_neurons) for gradient in found]

    def _whole(self, gradient: Tensor) -> Tensor:
        """A gradient by position at all positions: zero where a narrowed network, the last of its branch, has not worked."""
        narrowed = self.by_position and self.last is not None and self.last.output is self.ffns[-1].output
        width = self.batch["labels"].shape[1]
        if not narrowed or gradient.shape[1] == width:
            return gradient
        positions = answer_positions(self.batch["labels"]).repeat(len(gradient) // self.samples, 1)
        index = positions[..., None].expand(-1, -1, self.n_neurons)
        return gradient.new_zeros(len(gradient), width, self.n_neurons).scatter(1, index, gradient)

    def answer(self, copies: int, entry: Entry | None = None) -> Tensor:
        """Value of every row of several copies of the batch, from an entry on; in the caller's gradient mode."""
        own, more = (
            repeat_inputs(part, copies, self.samples) for part in (self.unscaled.inputs, self.unscaled.beside)
        )
        with entered(entry), beside(self.place, more):
            return self._value(own)

    def _value(self, inputs: Mapping[str, Any], narrow: bool = True) -> Tensor:
        if self.last is None or not narrow:
            return answer_value(self.model, inputs, self.target)
        return narrow_value(self.model, inputs, self.target, self.last)

    def start(self, copies: int) -> Entry | None:
        """The first layer's entry for several copies, or None where passes are plain."""
        start = self.unscaled.start
        return start and join([start] * copies)

    def owners(self, copies: int) -> Tensor | None:
        """For packed activations the row of each patch of several copies: int64 (patches,)."""
        return patch_owner(self.batch["image_grid_thw"].repeat(copies, 1)) if self.packed else None

    @property
    def activations(self) -> list[Tensor]:
        """Original activations of every layer, by position: float32 (positions, n_neurons)."""
        return self.unscaled.activations

    @cached_property
    def owner(self) -> Tensor:
        """The sample that each position belongs to: int64 (positions,)."""
        if self.packed:
            return self.owners(1)
        each = len(self.activations[0]) // self.samples  # tokens, or patches of a picture
        return torch.arange(self.samples, device=self.batch["labels"].device).repeat_interleave(each)

    def per_sample(self, positional: Tensor) -> Tensor:
        """Sum over the positions of each sample: (positions, columns) -> (samples, columns)."""
        total = positional.new_zeros(self.samples, positional.shape[1])
        return total.index_add(0, self.owner, positional)
