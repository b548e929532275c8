"""The integrand: a model asked one batch of questions with gates on its neurons, and gradients of the answer
in them.

Samples and grid points go through the model together: a pass holds `repeats` copies of the batch, each copy
by whole sample and whole picture, each with its own gates.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from mipnb.batches import IGNORED, Batch, answer_logprob, patch_owner, repeat_batch
from mipnb.hooks import captured, gated
from mipnb.models import FFN

TARGETS = ("probability", "log_likelihood")


def answer_value(model: nn.Module, batch: Batch, target: str) -> Tensor:
    """The differentiated value of each sample: float32 (batch,).

    "probability" is F = exp(mean log-probability of the answer tokens); "log_likelihood" is G = log p(Y | I,
    T), the sum of the same terms. Tokens whose label is -100 (prompt, padding) do not count, and logits are
    made for the positions before answer tokens only, where the model allows it.
    """
    logits, labels = answer_logits(model, batch)
    mean = answer_logprob(logits, labels)
    return mean.exp() if target == "probability" else mean * (labels != IGNORED).sum(-1)


def answer_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits before answer tokens, float32 (batch, columns, vocabulary), with labels (batch, columns): column j + 1 off j."""
    columns, labels = _answer_columns(batch["labels"])
    return _logits(model, batch, columns).float(), labels


def _answer_columns(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positions before an answer token of some sample, the last one twice, and the labels that fit them."""
    columns = (labels[:, 1:] != IGNORED).any(0).nonzero()[:, 0]
    first = labels.new_full((len(labels), 1), IGNORED)  # answer_logprob reads label j + 1 off logits j
    return torch.cat([columns, columns[-1:]]), torch.cat([first, labels[:, columns + 1]], dim=1)


def _logits(model: nn.Module, batch: Batch, columns: Tensor) -> Tensor:
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    known = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in known else {}
    if "logits_to_keep" in known:
        return model(**inputs, **options, logits_to_keep=columns).logits
    return model(**inputs, **options).logits[:, columns]


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
    """

    model: nn.Module
    ffns: Sequence[FFN]
    batch: Batch
    target: str
    packed: bool
    max_rows: int

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

    def value(self, gates: Sequence[Tensor] = ()) -> Tensor:
        """Value of every sample under gates (samples, n_neurons) for the first layers: float32 (samples,)."""
        with torch.no_grad(), gated(self.ffns, gates, self._owner(self.batch)):
            return answer_value(self.model, self.batch, self.target)

    def gradients(self, gates: Sequence[Tensor], wanted: Sequence[int], by_position: bool) -> list[Tensor]:
        """Gradients of every row's value, for `repeats` copies of the batch at once.

        Args:
            gates: per gated layer (repeats, samples, n_neurons), float32.
            wanted: layers to differentiate in; the graph begins at the first of them.
            by_position: differentiate in each position's activation, dF/dw_{n,t}; else in the gates,
                dF/dgate_n.

        Returns:
            Per wanted layer float32 (repeats, positions, n_neurons) or (repeats, samples, n_neurons). A layer
            that the answer does not depend on (beyond the feature layer of a vision tower) gets zeros.
        """
        repeats = len(gates[0])
        rows = repeat_batch(self.batch, repeats)
        leaves = [gate.flatten(0, 1).requires_grad_(layer in wanted) for layer, gate in enumerate(gates)]
        with gated(self.ffns, leaves, self._owner(rows)) as activations:
            value = answer_value(self.model, rows, self.target)
        at = [(activations if by_position else leaves)[layer] for layer in wanted]
        found = torch.autograd.grad(value.sum(), at, allow_unused=True, materialize_grads=True)
        return [gradient.float().reshape(repeats, -1, self.n_neurons) for gradient in found]

    def _owner(self, batch: Batch) -> Tensor | None:
        return patch_owner(batch["image_grid_thw"]) if self.packed else None

    @cached_property
    def activations(self) -> list[Tensor]:
        """Original activations w~ of every layer, float32 (positions, n_neurons).

        Padding is among them, and does not count: no answer token attends to it, so its gradients are zero.
        """
        with torch.no_grad(), captured(self.ffns) as seen:
            answer_value(self.model, self.batch, self.target)
        return [activation.float().reshape(-1, self.n_neurons) for activation in seen]

    @cached_property
    def owner(self) -> Tensor:
        """The sample that each position belongs to: int64 (positions,)."""
        owner = self._owner(self.batch)
        if owner is not None:
            return owner
        positions = len(self.activations[0]) // self.samples
        return torch.arange(self.samples, device=self.batch["labels"].device).repeat_interleave(positions)

    def per_sample(self, positional: Tensor) -> Tensor:
        """Sum over the positions of each sample: (positions, columns) -> (samples, columns)."""
        total = positional.new_zeros(self.samples, positional.shape[1])
        return total.index_add(0, self.owner, positional)


def integrate(
    probe: Probe,
    masks: Sequence[Tensor],
    grid: tuple[Tensor, Tensor],
    power: int,
    wanted: Sequence[int],
    by_position: bool,
) -> list[Tensor]:
    """sum_k weight_k (gradient at alpha_k)^power, with a set of neurons scaled together by alpha_k and all
    others at 1.

    Args:
        probe: the model and its questions.
        masks: per layer, from the first one on, which neurons are in the set: 0 or 1, float32 (sets, samples,
            n_neurons). Several sets are integrated independently of each other.
        grid: points and weights (m,), see `rules.quadrature`.
        power: 1 for integrated gradients (Eq. 4), 2 for the Fisher form (Eq. 6).
        wanted: layers whose integrals are returned.
        by_position: integrate dF/dw_{n,t} rather than dF/dgate_n.

    Returns:
        Per wanted layer float32 (sets, positions or samples, n_neurons).
    """
    alphas, weights = (tensor.to(masks[0].device) for tensor in grid)
    jobs = torch.arange(len(masks[0]) * len(alphas), device=masks[0].device)  # (set, grid point) pairs
    totals: list[Tensor] = []
    for part in jobs.split(probe.repeats):
        chosen, step = part // len(alphas), part % len(alphas)
        gates = [1 + (alphas[step][:, None, None] - 1) * mask[chosen] for mask in masks]
        found = probe.gradients(gates, wanted, by_position)
        if not totals:
            totals = [gradient.new_zeros(len(masks[0]), *gradient.shape[1:]) for gradient in found]
        for total, gradient in zip(totals, found, strict=True):
            total.index_add_(0, chosen, weights[step][:, None, None] * gradient**power)
    return totals
