"""Training whole weights in place, and taking the change out again as an `Edit`: the model is vanilla before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from peft import LoraConfig
from torch import Tensor, nn

from mipnb.baselines.settings import Settings
from mipnb.baselines.sides import Known, Side, passes_of
from mipnb.baselines.terms import Term
from mipnb.batches import Batch
from mipnb.edits import Edit, WeightSlice
from mipnb.lora import lora_targets, with_updates
from mipnb.models import fingerprint, input_device, stored
from mipnb.patches import patches_as_products
from mipnb.pools import pools
from mipnb.precision import training_attention

#: name of a weight -> where it may change, bool, of its shape
Masks = Mapping[str, Tensor]


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
    shares = (1.0, settings.retain_weight)
    sides = [
        Side(term, pools(found, seed, which), share)
        for which, ((term, found), share) in enumerate(zip((forget, retain), shares, strict=True))
    ]
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


def _steps(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    sides: Sequence[Side],
    settings: Settings,
    masks: Masks | None,
) -> list[tuple[int, float, float, float]]:
    trained, passes = list(weights.values()), passes_of(sides)
    adamw = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    history = []
    for step in range(settings.n_steps):
        adamw.zero_grad(set_to_none=True)
        found = dict.fromkeys(sides, 0.0)
        for each in passes:
            for side, value in each.backward(model, trained, settings).items():
                found[side] += value
        total = sum(side.weight * value for side, value in found.items())
        if not math.isfinite(total):
            raise ValueError(
                f"the loss is {total} at step {step}: lower learning_rate ({settings.learning_rate})"
            )
        _apply_masks(weights, masks)
        nn.utils.clip_grad_norm_(trained, settings.clip_norm)
        adamw.step()
        history.append((step, *found.values(), total))
    return history


def _apply_masks(weights: Mapping[str, Tensor], masks: Masks | None) -> None:
    """Gradients only where weights may change; AdamW without decay then leaves the others bit for bit."""
    for name, weight in weights.items() if masks is not None else ():
        if weight.grad is not None:
            weight.grad *= masks[name].to(weight.grad)
