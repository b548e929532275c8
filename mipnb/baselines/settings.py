"""What a baseline is trained with."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

WEIGHTS = ("full", "lora")


@dataclass(frozen=True)
class Settings:
    """Settings of all methods; each looks at its own (`methods.METHODS` has its source's values).

    Attributes:
        n_steps: steps of AdamW; each takes a batch of each modality from both sets.
        learning_rate: constant.
        weights: "full": every weight is trained; "lora": low-rank updates of the language layers, merged at the end.
        lora_rank, lora_alpha: of these updates.
        retain_weight: weight of the retain term (RMU's alpha).
        beta: NPO's inverse temperature.
        layer_index: decoder layer, from 0, that RMU steers; the down projections of it and of the two below are trained.
        steering: RMU's coefficient c; adaptive RMU's factor of the mean norm of the forget activations.
        share: of each branch's neurons that MANU silences.
        threshold: MANU: an activation above it counts as active; DEPN: share of the largest attribution.
        agreement: share of the samples in which DEPN must find a neuron.
        integration_steps: DEPN's m.
        attributed: about so many questions of each modality DEPN looks at: whole batches, spread over those there are.
        saliency: MMUnlearner trains weights whose squared gradients on the forget set are at least so many times those on
            the retain set.
        clip_norm: largest norm of the gradient.
    """

    n_steps: int = 100
    learning_rate: float = 1e-5
    weights: str = "full"
    lora_rank: int = 16
    lora_alpha: int = 32
    retain_weight: float = 1.0
    beta: float = 0.1
    layer_index: int = 7
    steering: float = 20.0
    share: float = 0.05
    threshold: float = 0.1
    agreement: float = 0.5
    integration_steps: int = 20
    attributed: int = 96
    saliency: float = 1.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights is {self.weights!r}, expected one of {', '.join(WEIGHTS)}")
        for name in (item.name for item in fields(self) if item.type in ("float", "int")):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}, expected a finite number of at least 0")
        for name in ("share", "agreement"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share above 0 and at most 1")
