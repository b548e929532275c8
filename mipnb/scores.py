"""Scores of neurons, sample x layer x neuron, with how they were made; kept in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mipnb.records import load_record, save_record

FORMAT = "mipnb-scores-1"
_TENSORS = ("values", "f_full", "f_zero", "gap")


@dataclass(frozen=True, eq=False)
class Scores:
    """How much each neuron did for each sample's answer.

    Attributes:
        branch: "text" or "vision".
        values: float32 (samples, layers, n_neurons).
        names: an identifier per sample, so that rows are matched by name and never by order.
        fingerprint: of the model, see `models.fingerprint`.
        parameters: how they were made: kind, score, search, rule, n_steps, top_k, target.
        f_full: the value of each sample in the unscaled model, float32 (samples,).
        f_zero: the value with the scaled set at zero: (samples,) for one_pass; (samples, layers) for greedy,
            where the set is path so far + layer. None where no completeness holds (joint, Fisher) or it was
            not asked for.
        gap: |sum of A - (f_full - f_zero)| / |f_full - f_zero|, the completeness gap, of f_zero's shape.
    """

    branch: str
    values: Tensor
    names: tuple[str, ...]
    fingerprint: str
    parameters: dict[str, Any] = field(default_factory=dict)
    f_full: Tensor | None = None
    f_zero: Tensor | None = None
    gap: Tensor | None = None

    def __post_init__(self) -> None:
        if self.values.dim() != 3 or len(self.names) != len(self.values):
            raise ValueError(
                f"scores are {tuple(self.values.shape)} for {len(self.names)} names; expected (samples, "
                f"layers, neurons) and one name a sample"
            )
        if self.values.dtype != torch.float32:
            raise ValueError(f"scores are {self.values.dtype}; rounded scores tie, expected float32")
        if not self.values.isfinite().all():
            sample, layer, _ = (~self.values.isfinite()).nonzero()[0].tolist()
            raise ValueError(
                f"scores of sample {self.names[sample]!r} are not finite at {self.branch} layer {layer}: the "
                "model's gradient overflows there, or its weights are no numbers: load it in float32, and look at them"
            )

    @property
    def n_neurons(self) -> int:
        """Neurons a layer."""
        return self.values.shape[2]

    @property
    def scored(self) -> Tensor:
        """Where a sample has any score but 0, and so neurons that are its best: bool (samples, layers)."""
        return (self.values != 0).any(2)

    @property
    def silent_layers(self) -> list[int]:
        """Layers whose scores are all 0: the answer does not depend on them, and a path has nothing to choose there."""
        return (~self.scored.any(0)).nonzero()[:, 0].tolist()

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all."""
        tensors = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        fields = {"branch": self.branch, "names": self.names, "fingerprint": self.fingerprint}
        return save_record(path, FORMAT, tensors, fields | {"parameters": self.parameters})

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote; FileNotFoundError or ValueError if that is not there."""
        tensors, fields = load_record(path, FORMAT)
        return cls(names=tuple(fields.pop("names")), **fields, **tensors)


def concatenate(parts: Sequence[Scores]) -> Scores:
    """The scores of several batches as one.

    Raises:
        ValueError: no parts, or parts of another branch, model or parameters.
    """
    if not parts:
        raise ValueError("no scores to concatenate; expected at least one batch")
    first = parts[0]
    for part in parts:
        for name in ("branch", "fingerprint", "parameters"):
            if getattr(part, name) != getattr(first, name):
                raise ValueError(
                    f"scores of different {name} do not go together: "
                    f"{getattr(first, name)} and {getattr(part, name)}"
                )
    joined = {
        name: None if getattr(first, name) is None else torch.cat([getattr(part, name) for part in parts])
        for name in _TENSORS
    }
    names = tuple(name for part in parts for name in part.names)
    return Scores(
        first.branch, names=names, fingerprint=first.fingerprint, parameters=first.parameters, **joined
    )
