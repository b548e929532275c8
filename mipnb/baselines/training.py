"""Training whole weights in place, and taking the change out again as an `Edit`: the model is vanilla before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from peft import LoraConfig
from torch import Tensor, nn

from mipnb.baselines.patches import patches_as_products
from mipnb.baselines.settings import Settings
from mipnb.baselines.terms import Term
from mipnb.batches import Batch, take_batch, to_device
from mipnb.edits import Edit, WeightSlice
from mipnb.lora import lora_targets, with_updates
from mipnb.models import fingerprint, input_device, stored
from mipnb.pools import Pool, pools
from mipnb.precision import mixed_precision, training_attention

#: name of a weight -> where it may change, bool, of its shape
Masks = Mapping[str, Tensor]
#: what several trainings from one vanilla model, on the same batches, need to find out about it only once
Known = dict[tuple, Any]


def train(
    model: nn.Module,
    forget: tuple[Term, Sequence[Batch]],
    retain: tuple[Term, Sequence[Batch]],
    settings: Settings,
    seed: int,
    names: Sequence[str] | None = None,
    masks: Masks | None = None,
    metadata: dict | None = None,
    known: Known | None = None,
) -> tuple[Edit, pd.DataFrame]:
    """Minimise forget term + retain_weight * retain term; batches are visited as `editing.edit` visits them.

    Args:
        model: the vanilla model, no parameter taking a gradient.
        forget, retain: a term, and batches encoded with answers.
        settings: of the training.
        seed: order of batches, start of LoRA's updates.
        names: the weights to train; None: all, or LoRA's.
        masks: where weights may change; None: everywhere.
        metadata: of the edit.
        known: what the vanilla model said, filled and read here (see `methods.baseline`).

    Returns:
        The edit, and one row a step: step, loss_forget, loss_retain, loss (weighted sum).

    Raises:
        ValueError: no batches, or a loss that is not finite.
    """
    if not forget[1] or not retain[1]:
        raise ValueError(f"training needs batches of both sets; got {len(forget[1])} and {len(retain[1])}")
    sides = [_Side(term, pools(found, seed, which)) for which, (term, found) in enumerate((forget, retain))]
    names = _names(model, settings) if names is None else list(names)
    with fast_passes(model), changed(model, names, metadata or {}) as made:
        for side in sides:
            side.remember(model, settings, {} if known is None else known)
        torch.manual_seed(seed)
        with trainable(model, names, settings) as weights:
            history = _steps(model, weights, sides, settings, masks)
    return made[0], pd.DataFrame(history, columns=["step", "loss_forget", "loss_retain", "loss"])


@contextmanager
def fast_passes(model: nn.Module) -> Iterator[None]:
    """Attention and patch embedding as they are fastest where the model is trained."""
    with training_attention(input_device(model)), patches_as_products(model):
        yield


def _names(model: nn.Module, settings: Settings) -> list[str]:
    """The weights that change: all, or those that LoRA's updates are merged into."""
    if settings.weights == "lora":
        return [f"{name}.weight" for name in lora_targets(model)]
    return [name for name, _ in model.named_parameters()]


@contextmanager
def changed(model: nn.Module, names: Sequence[str], metadata: dict) -> Iterator[list[Edit]]:
    """Take what happens to these weights out as an edit, and put the old values back, also after an error.

    Old values wait in CPU memory; the edit holds the rows that changed.

    Args:
        model: changed within the block, vanilla after it.
        names: the only weights that may change.
        metadata: of the edit.

    Yields:
        A list that holds the edit once the block is left.
    """
    mark, made = fingerprint(model), []
    old = {name: stored(model, name).detach().to("cpu", copy=True) for name in names}
    try:
        yield made
        slices = [_rows(name, old[name], stored(model, name).detach().cpu()) for name in names]
        made.append(Edit(tuple(part for part in slices if len(part.neurons)), mark, metadata))
    finally:
        with torch.no_grad():
            for name, values in old.items():
                stored(model, name).copy_(values)


def _rows(name: str, old: Tensor, new: Tensor) -> WeightSlice:
    """The rows of a weight that differ."""
    rows = (old != new).reshape(len(old), -1).any(-1).nonzero()[:, 0]
    return WeightSlice(name, 0, rows, old[rows], new[rows].clone())


@contextmanager
def trainable(model: nn.Module, names: Sequence[str], settings: Settings) -> Iterator[dict[str, Tensor]]:
    """What the optimiser trains: the weights themselves, or LoRA's updates, merged at the end; no gradients after it."""
    if settings.weights == "lora":
        targets = [name.removesuffix(".weight") for name in names]
        config = LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=targets)
        adapted = with_updates(model, config)
        try:
            yield {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
        finally:
            adapted.merge_and_unload()
            model.requires_grad_(False)
        return
    weights = {name: stored(model, name).requires_grad_(True) for name in names}
    try:
        yield weights
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)
            weight.grad = None


class _Side:
    """One set's term, batches, and what the vanilla model said about them."""

    def __init__(self, term: Term, found: list[Pool]) -> None:
        self.term, self.pools = term, found
        self.references: dict[int, Tensor] = {}

    def remember(self, model: nn.Module, settings: Settings, known: Known) -> None:
        """Compute the references of all batches that are not known; the model has to be vanilla still."""
        if self.term.reference is None:
            return
        if self.term.reads is not None:
            key = (self.term.reference, *(getattr(settings, name) for name in self.term.reads))
            self.references = known.setdefault(key, {})
        batches = (batch for pool in self.pools for batch in pool.batches)
        for batch in (batch for batch in batches if id(batch) not in self.references):
            with torch.no_grad(), mixed_precision():
                here = to_device(batch, input_device(model))
                self.references[id(batch)] = self.term.reference(model, here, settings).cpu()

    def backward(self, model: nn.Module, settings: Settings, weight: float) -> float:
        """Add the gradient of the weighted term on the next batch of each modality; returns the unweighted term."""
        return sum(self._one(model, pool, settings, weight) for pool in self.pools)

    def _one(self, model: nn.Module, pool: Pool, settings: Settings, weight: float) -> float:
        index, batch = pool.visit(input_device(model))
        reference = self.references.get(id(pool.batches[index]))

        def part(rows: slice) -> float:
            """What these rows of the batch (questions) add to the term, unweighted; its weighted gradient is added up."""
            own = take_batch(batch, rows.start, rows.stop)
            known = None if reference is None else reference[rows].to(batch["input_ids"].device)
            with mixed_precision():
                losses = self.term.loss(model, own, known, settings)
            loss = losses.sum() / len(batch["input_ids"]) / len(self.pools)
            (weight * loss).backward()
            return loss.item()

        return sum(pool.in_parts(part, batch))


def _steps(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    sides: Sequence[_Side],
    settings: Settings,
    masks: Masks | None,
) -> list[tuple[int, float, float, float]]:
    adamw = torch.optim.AdamW(weights.values(), lr=settings.learning_rate, weight_decay=0.0, fused=True)
    history = []
    for step in range(settings.n_steps):
        adamw.zero_grad(set_to_none=True)
        shares = (1.0, settings.retain_weight)
        found = [side.backward(model, settings, share) for side, share in zip(sides, shares, strict=True)]
        total = found[0] + settings.retain_weight * found[1]
        if not math.isfinite(total):
            raise ValueError(
                f"the loss is {total} at step {step}: lower learning_rate ({settings.learning_rate})"
            )
        _apply_masks(weights, masks)
        nn.utils.clip_grad_norm_(weights.values(), settings.clip_norm)
        adamw.step()
        history.append((step, *found, total))
    return history


def _apply_masks(weights: Mapping[str, Tensor], masks: Masks | None) -> None:
    """Gradients only where weights may change; AdamW without decay then leaves the others bit for bit."""
    for name, weight in weights.items() if masks is not None else ():
        if weight.grad is not None:
            weight.grad *= masks[name].to(weight.grad)
