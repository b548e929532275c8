"""A training that can be interrupted: all that its next step depends on, in one file, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mipnb.records import load_record, save_record

FORMAT = "mipnb-checkpoint-1"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a training is kept.

    Attributes:
        path: the file.
        parameters: what is trained, by name, in the optimiser's order.
        identity: plain values that say what training this is (model, questions, settings, seed).
        every: steps between two savings.
    """

    path: Path
    parameters: Mapping[str, Tensor]
    identity: Mapping[str, Any] = field(default_factory=dict)
    every: int = 50

    def due(self, step: int) -> bool:
        """Whether a step, counted from 0, is one to save after."""
        return (step + 1) % self.every == 0

    def save(self, optimizer: Optimizer, scheduler: LRScheduler, history: list[float]) -> None:
        """Write parameters, the optimiser's and the schedule's state, random states and losses."""
        tensors = {f"parameter/{name}": tensor for name, tensor in self.parameters.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in state.items()}
        tensors |= {f"random/{name}": state for name, state in _random_states().items()}
        fields = {"identity": dict(self.identity), "schedule": scheduler.state_dict(), "history": history}
        rates = [group["lr"] for group in optimizer.param_groups]
        save_record(self.path, FORMAT, tensors, fields | {"rates": rates})

    def restore(self, optimizer: Optimizer, scheduler: LRScheduler) -> list[float]:
        """Put back what `save` wrote, if there is a file; returns the losses so far, [] for a training from scratch.

        Raises:
            ValueError: the file is damaged, or of another training (what differs is named).
        """
        if not Path(self.path).exists():
            return []
        tensors, fields = load_record(self.path, FORMAT)
        self._check(fields["identity"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"parameter/{name}"])
        optimizer.load_state_dict(optimizer.state_dict() | {"state": _optimizer_state(tensors)})
        scheduler.load_state_dict(fields["schedule"])
        for group, rate in zip(optimizer.param_groups, fields["rates"], strict=True):
            group["lr"] = rate
        _set_random_states({name[7:]: state for name, state in tensors.items() if name.startswith("random/")})
        return fields["history"]

    def _check(self, found: Mapping[str, Any]) -> None:
        names = sorted(found.keys() | self.identity.keys())
        told = [
            f"{name} {found.get(name)!r}, now {self.identity.get(name)!r}"
            for name in names
            if found.get(name) != self.identity.get(name)
        ]
        if told:
            raise ValueError(
                f"{self.path} is of another training: {'; '.join(told)}. Go on with its settings, or delete it"
            )


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, *rest = key.split("/")
        if kind == "optimizer":
            state.setdefault(int(rest[0]), {})[rest[1]] = tensor
    return state


def _random_states() -> dict[str, Tensor]:
    """States of torch's generators: the CPU's and every GPU's."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{str(index): state for index, state in enumerate(gpus)}}


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    for name, state in states.items():
        if name == "cpu":
            torch.set_rng_state(state)
        elif int(name) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(name))
