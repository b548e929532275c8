"""The result of editing: a small delta of weights, put into the vanilla model and taken out bit for bit.

An edit knows, for every weight that it touches, which rows (or columns) it replaces, what they were and what
they become.
It holds nothing else of the model: its file is as small as the neuron path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipnb.models import fingerprint, stored
from mipnb.records import load_record, save_record

FORMAT = "mipnb-edit-1"
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class WeightSlice:
    """Some rows or columns of one weight, before and after.

    Attributes:
        name: the parameter's dotted name.
        axis: 0 for rows of a weight or entries of a bias, 1 for columns.
        neurons: int64 (k,), which rows or columns.
        old: the vanilla values, in the model's dtype: (k, d), (d, k) or (k,).
        new: the edited values, same shape and dtype.
    """

    name: str
    axis: int
    neurons: Tensor
    old: Tensor
    new: Tensor

    def __post_init__(self) -> None:
        if self.old.shape != self.new.shape or self.old.dtype != self.new.dtype:
            raise ValueError(
                f"{self.name}: old values are {tuple(self.old.shape)} {self.old.dtype}, new ones "
                f"{tuple(self.new.shape)} {self.new.dtype}; expected the same shape and dtype"
            )

    def read(self, model: nn.Module) -> Tensor:
        """The model's present values at this slice; ValueError if the model has no such weight."""
        weight = self._weight(model)
        return weight.detach().index_select(self.axis, self.neurons.to(weight.device)).cpu()

    def write(self, model: nn.Module, values: Tensor) -> None:
        """Put values (of this slice's shape and dtype) into the model, in place."""
        weight = self._weight(model)
        with torch.no_grad():
            weight.index_copy_(self.axis, self.neurons.to(weight.device), values.to(weight.device))

    def _weight(self, model: nn.Module) -> Tensor:
        try:
            weight = stored(model, self.name)
        except AttributeError:
            raise ValueError(
                f"the model has no weight {self.name}: this edit belongs to another model"
            ) from None
        if weight.dtype != self.old.dtype:
            raise ValueError(
                f"{self.name} is {weight.dtype}, the edit was made in {self.old.dtype}: load the model so"
            )
        size, largest = weight.shape[self.axis], int(self.neurons.max())
        if largest >= size or weight.numel() // size != self.old.numel() // len(self.neurons):
            raise ValueError(
                f"{self.name} is {tuple(weight.shape)}: the edit's slice {tuple(self.old.shape)} of "
                f"neuron {largest} does not fit, it belongs to another model"
            )
        return weight


@dataclass(frozen=True, eq=False)
class Edit:
    """What an edit changes in the vanilla model, and nothing else.

    Attributes:
        slices: the rows and columns, one entry a weight.
        fingerprint: `mipnb.models.fingerprint` of the vanilla model it was made on.
        metadata: plain values: method, seed, parameters, paths.
    """

    slices: tuple[WeightSlice, ...]
    fingerprint: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def n_values(self) -> int:
        """How many numbers of the model the edit replaces."""
        return sum(part.new.numel() for part in self.slices)

    def apply(self, model: nn.Module) -> None:
        """Put the edit into the vanilla model, in place.

        Raises:
            ValueError: the model is another one, its rows are not the vanilla ones, or the edit is already
                in it. The model is then as it was.
        """
        if self.is_applied(model):
            raise ValueError("this edit is already applied to this model: remove it first")
        found = fingerprint(model)
        changed = [part.name for part in self.slices if not same_bits(part.read(model), part.old)]
        if changed or found != self.fingerprint:
            raise ValueError(
                f"the model ({found}) is not the vanilla model of this edit ({self.fingerprint}): "
                f"{len(changed)} of {len(self.slices)} weights {changed[:1]} differ where it writes. "
                f"Load the vanilla model, or remove the other edit"
            )
        for part in self.slices:
            part.write(model, part.new)

    def remove(self, model: nn.Module) -> None:
        """Take the edit out again: every weight is restored bit for bit.

        Raises:
            ValueError: the edit is not in this model. The model is then as it was.
        """
        if not self.is_applied(model):
            raise ValueError("this edit is not applied to this model, so it cannot be removed")
        for part in self.slices:
            part.write(model, part.old)

    def is_applied(self, model: nn.Module) -> bool:
        """Whether the model holds the edit's values, bit for bit; ValueError if the weights do not fit."""
        return all(same_bits(part.read(model), part.new) for part in self.slices)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model with the edit in it, for the length of a `with` block; removed also after an error."""
        self.apply(model)
        try:
            yield model
        finally:
            self.remove(model)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: the slices, and all else as JSON in its header."""
        kinds = ("neurons", "old", "new")
        tensors = {
            f"{kind}/{part.name}": getattr(part, kind).clone() for part in self.slices for kind in kinds
        }
        axes = {part.name: part.axis for part in self.slices}
        fields = {"axes": axes, "fingerprint": self.fingerprint, "metadata": self.metadata}
        return save_record(path, FORMAT, tensors, fields)

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged, or another kind of file.
        """
        tensors, fields = load_record(path, FORMAT)
        slices = tuple(
            WeightSlice(name, axis, *(tensors[f"{kind}/{name}"] for kind in ("neurons", "old", "new")))
            for name, axis in fields["axes"].items()
        )
        return cls(slices, fields["fingerprint"], fields["metadata"])


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree in shape, dtype and every bit (-0.0 is not 0.0, a NaN equals itself)."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    integer = _INTEGERS[one.element_size()]
    return torch.equal(one.contiguous().view(integer), other.contiguous().view(integer))
