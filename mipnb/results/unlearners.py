"""Every baseline by one call: what it is given to train on, and the settings it has been given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb import trials
from mipnb.baselines import METHODS, Settings, baseline, default_settings, refusing
from mipnb.baselines.training import Known
from mipnb.batches import Batch
from mipnb.benchmarks import Question
from mipnb.edits import Edit
from mipnb.rmisu import training_batches


@dataclass(frozen=True, eq=False)
class TrainingSets:
    """Batches of the forget and of the retain set, and the forget set's with answers that tell nothing.

    `known` is what trainings on them have found out about the vanilla model, for the next (`baselines.baseline`).
    """

    forget: list[Batch]
    retain: list[Batch]
    refusals: list[Batch]
    known: Known = field(default_factory=dict)


def training_sets(
    processor, params: BaseModel, forget: list[Question], retain: list[Question]
) -> TrainingSets:
    """What all baselines train on: the batches that ours trains on (`trials.edit_batches`), neighbours left out.

    Args:
        processor: the model's own.
        params: of notebook 04: batch sizes and counts, steps, seed.
        forget, retain: training questions.
    """
    plain = params.model_copy(update={"neighbour_batch": 0})
    limit = min(params.n_forget_batches, params.edit_steps or 1)
    told = refusing(forget, params.seed)
    refusals = training_batches(processor, told, params.forget_batch, limit, params.seed)
    return TrainingSets(*trials.edit_batches(processor, plain, forget, retain, []), refusals)


def settings_of(method: str, params: BaseModel, chosen: Mapping[str, Any]) -> Settings:
    """A baseline's settings: its source's, with as many steps as ours, the run's layer, and what was chosen for it.

    All weights are trained, or, with baseline_lora, low-rank updates where the source has them.

    Args:
        method: a name of `METHODS`.
        params: edit_steps; baseline_lora; layer_index, which RMU steers as ours does (its own, 7, is for models of 32 layers).
        chosen: setting -> value, of `tuning.read_choices`; wins over all else.
    """
    common = {"n_steps": params.edit_steps, "layer_index": params.layer_index}
    common["weights"] = "lora" if params.baseline_lora and METHODS[method].lora else "full"
    return default_settings(method, **common | dict(chosen))


def seeds_of(method: str, params: BaseModel) -> list[int]:
    """The seeds that a baseline is trained with: one for a method that prunes, since nothing in it is random."""
    count = params.n_baseline_seeds if METHODS[method].forget else 1
    return [params.seed + index for index in range(count)]


def check_methods(methods: Sequence[str]) -> list[str]:
    """The methods, if all of them are known and none stands twice; else ValueError."""
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"methods {unknown} are not known; expected some of {', '.join(METHODS)}")
    if len(set(methods)) < len(methods):
        raise ValueError(f"methods = {list(methods)}: a method stands twice; name each once")
    return list(methods)


def unlearn(
    method: str, model: nn.Module, sets: TrainingSets, settings: Settings, seed: int
) -> tuple[Edit, pd.DataFrame]:
    """Train (or prune) by a baseline; returns and errors as `baselines.baseline`."""
    forget = sets.refusals if METHODS[method].refuses else sets.forget
    return baseline(method, model, forget, sets.retain, settings, seed, sets.known)
