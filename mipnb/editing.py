"""Pruning (Eq. 10) and RMisU (Eq. 11-16): the path's neurons, in both branches, are silenced, then retrained.

Both return an `Edit` and leave the model vanilla. `losses` holds a step's losses, `overlay` the neurons while
they are trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler

from mipnb.batches import Batch
from mipnb.checkpoints import Checkpoint
from mipnb.edits import Edit, same_bits
from mipnb.losses import Pass, passes_of, step_losses
from mipnb.models import fingerprint, input_device, text_layers
from mipnb.overlay import Overlay, overlay
from mipnb.partial import Partial, batches_digest, partial_results, weights_digest
from mipnb.patches import patches_as_products
from mipnb.paths import NeuronPath
from mipnb.pools import Pool, States, pools
from mipnb.precision import training_attention
from mipnb.progress import progress
from mipnb.rmisu import LOSSES, EditConfig, fixed_direction, optimiser, trainable

#: RMisU with its default settings
DEFAULTS = EditConfig()


def prune(model: nn.Module, paths: Sequence[NeuronPath]) -> Edit:
    """The edit that silences the paths' neurons in the weights (Eq. 10), so that they can still learn.

    Gated networks lose the `up_proj` rows and their biases, ungated ones the output columns. The model is
    not changed: apply the edit; a model saved with it applied is the pruned model.

    Args:
        model: the vanilla model.
        paths: one or both branches.

    Raises:
        ValueError: a path of another model, or no neurons.
    """
    return _as_edit(model, paths, overlay(model, paths, silent=True), {"method": "prune"})


def edit(
    model: nn.Module,
    paths: Sequence[NeuronPath],
    forget_batches: Sequence[Batch],
    retain_batches: Sequence[Batch],
    config: EditConfig = DEFAULTS,
    seed: int = 42,
    resume: str | Path | None = None,
    every: int = 10,
    states: States | None = None,
) -> tuple[Edit, pd.DataFrame]:
    """Prune the paths' neurons, then train them by RMisU; the model is vanilla before and after.

    Every step takes one batch of each modality present from the forget and from the retain set; losses are
    means over the modalities. Batches are visited in an order shuffled by the seed, over and over. A batch that does
    not fit into memory is halved, and said so; gradients of the halves add up to its own.

    Args:
        model: the vanilla model, no parameter taking a gradient.
        paths: one or both branches.
        forget_batches: encoded with answers, one modality a batch.
        retain_batches: the same, of people to keep.
        config: losses and optimiser.
        seed: order of batches and directions of steering.
        resume: the notebook's folder, where a checkpoint is kept until it is through (`mipnb.partial`), so that a
            stopped run goes on there and ends in the same edit, bit for bit; None keeps nothing.
        every: steps between two checkpoints; the last step has one.
        states: vanilla states of batches, filled and read here: give one dictionary to all edits of the same model,
            batches and layer_index, and they are computed once.

    Returns:
        The edit, and a table with one row a step: step, loss_forget, loss_retain, loss_ce (unweighted), loss
            (weighted sum).

    Raises:
        ValueError: no batches, no such layer, a path of another model, parameters that take gradients, or a
            loss that is not finite (step and loss are named).
    """
    _check(model, forget_batches, retain_batches, config)
    trained = overlay(model, paths, silent=config.prune_first)
    forget = pools(forget_batches, seed, 0, states)
    retain = pools(retain_batches, seed, 1, states)
    passes = passes_of(model, forget, retain, config)
    adamw, schedule = optimiser(trained, config)
    fixed = fixed_direction(model, retain_batches, config)
    kept = _kept(resume, model, paths, (forget_batches, retain_batches), config, seed)
    checkpoint = _checkpoint(kept, trained, every)
    history = _restored(checkpoint, adamw, schedule, [*forget, *retain])
    named = f"editing (seed {seed})"
    with (
        progress(config.n_steps, named, len(history)) as bar,
        training_attention(input_device(model)),
        patches_as_products(model),
    ):
        for step in range(len(history), config.n_steps):
            adamw.zero_grad(set_to_none=True)
            history.append(_step(model, trained, passes, config, step, fixed))
            adamw.step()
            schedule.step()
            if checkpoint and (checkpoint.due(step) or step + 1 == config.n_steps):
                checkpoint.save(adamw, schedule, history)
            bar.update()
    metadata = {"method": "rmisu", "seed": seed, "config": asdict(config)}
    columns = ["step", *LOSSES, "loss"]
    return _as_edit(model, paths, trained, metadata), pd.DataFrame(history, columns=columns)


def _kept(
    resume: str | Path | None,
    model: nn.Module,
    paths: Sequence[NeuronPath],
    sets: tuple[Sequence[Batch], Sequence[Batch]],
    config: EditConfig,
    seed: int,
) -> Partial:
    """The folder of an edit that is told from others by all that it depends on."""
    return partial_results(
        resume, "edit", model=lambda: weights_digest(model), paths=[path.layers for path in paths],
        batches=lambda: [batches_digest(batches) for batches in sets], config=asdict(config), seed=seed,
    )  # fmt: skip


def _step(
    model: nn.Module,
    trained: Overlay,
    passes: list[Pass],
    config: EditConfig,
    step: int,
    fixed: Tensor | None,
) -> dict[str, float]:
    """The gradients of one step, on the next batches of forget and retain set, clipped; returns its row of the history."""
    row = _row(step, step_losses(model, trained, passes, config, fixed), config)
    nn.utils.clip_grad_norm_(trainable(trained), config.clip_norm)
    return row


def _checkpoint(kept: Partial, trained: Overlay, every: int) -> Checkpoint | None:
    """Where the neurons' training is kept; None if nothing is."""
    if kept.folder is None:
        return None
    tensors = {str(index): tensor for index, tensor in enumerate(trainable(trained))}
    return Checkpoint(kept.folder / "training.safetensors", tensors, every=every)


def _restored(
    checkpoint: Checkpoint | None, adamw: AdamW, schedule: LRScheduler, drawn: Sequence[Pool]
) -> list[dict]:
    """Put neurons, optimiser, schedule and the pools' places back; the steps so far, none if nothing was kept."""
    try:
        history = checkpoint.restore(adamw, schedule) if checkpoint else []
    except ValueError:  # damaged
        history = []
    for pool in drawn:
        pool.skip(len(history))
    return history


def _check(model: nn.Module, forget: Sequence[Batch], retain: Sequence[Batch], config: EditConfig) -> None:
    if not forget or not retain:
        raise ValueError(
            f"editing needs batches of both sets; got {len(forget)} of forget, {len(retain)} of retain"
        )
    n_layers = len(text_layers(model))
    if config.layer_index >= n_layers:
        raise ValueError(
            f"layer_index {config.layer_index}: the model's decoder layers are 0 to {n_layers - 1}"
        )
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the model's own parameters take gradients: call model.requires_grad_(False) first")


def _row(step: int, parts: dict[str, float], config: EditConfig) -> dict[str, float]:
    bad = {name: value for name, value in parts.items() if not math.isfinite(value)}
    if bad:
        raise ValueError(
            f"editing stopped: step {step}: {bad} is not finite. Lower learning_rate "
            f"({config.learning_rate}) or steering_scale ({config.steering_scale}); are there answers?"
        )
    total = sum(weight * parts[name] for name, weight in config.weights.items())
    return {"step": step, **parts, "loss": total}


def _as_edit(model: nn.Module, paths: Sequence[NeuronPath], trained: Overlay, metadata: dict) -> Edit:
    """The overlay's changed rows and columns as an edit."""
    changed = tuple(part for part in trained.slices() if not same_bits(part.old, part.new))
    if not changed:
        raise ValueError("the edit would change nothing: prune first, or train for at least one step")
    counts = {path.branch: [len(layer) for layer in path.layers] for path in paths}
    return Edit(changed, fingerprint(model), {**metadata, "neurons_per_layer": counts})
