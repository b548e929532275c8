"""The batches that an edit goes through, round after round, and the vanilla states that they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mipnb.batches import Batch, take_batch, to_device
from mipnb.memory import in_parts
from mipnb.models import input_device
from mipnb.precision import mixed_precision
from mipnb.shared_states import SharedStates
from mipnb.steering import hidden_state

Result = TypeVar("Result")
#: vanilla states of batches, by `id` of the batch
States = dict[int, Tensor] | SharedStates


class Pool:
    """The batches of one set and modality, reshuffled each time round, and their vanilla states.

    Both wait in CPU memory. A batch that does not fit goes through the model in halves, whose gradients add up.
    """

    def __init__(self, batches: list[Batch], key: Sequence[int], states: States | None = None) -> None:
        self.batches, self.key = batches, list(key)
        self.shared = states is not None
        self.frozen: States = {} if states is None else states
        self.visits = 0
        self.rows = max(len(batch["input_ids"]) for batch in batches)
        self._order = self._shuffled()

    def _shuffled(self) -> Iterator[int]:
        random = np.random.default_rng(self.key)
        while True:
            yield from random.permutation(len(self.batches)).tolist()

    def skip(self, visits: int) -> None:
        """Go on as after so many visits."""
        for _ in range(visits):
            next(self._order)
        self.visits += visits

    def visit(self, device: torch.device | str | int) -> tuple[int, Batch]:
        """The next batch, on a device, and its index."""
        index = next(self._order)
        self.visits += 1
        return index, to_device(self.batches[index], device)

    def draw(self, model: nn.Module, layer: nn.Module, n_steps: int) -> tuple[int, Batch, Tensor]:
        """The next batch, its index, its vanilla states; these are kept if the batch comes round again, here or elsewhere."""
        index, batch = self.visit(input_device(model))
        which = id(self.batches[index])
        state = self.frozen.get(which)
        if state is None:
            state = self._vanilla(model, layer, batch)
            if self.shared or n_steps > len(self.batches):
                self.frozen[which] = state.cpu()
        return index, batch, state.to(batch["input_ids"].device)

    def _vanilla(self, model: nn.Module, layer: nn.Module, batch: Batch) -> Tensor:
        def part(rows: slice) -> Tensor:
            """Vanilla states of these rows of the batch: float32 (rows, tokens, d_model)."""
            with torch.no_grad(), mixed_precision():
                return hidden_state(model, take_batch(batch, rows.start, rows.stop), layer).float()

        return torch.cat(self.in_parts(part, batch))

    def in_parts(self, work: Callable[[slice], Result], batch: Batch) -> list[Result]:
        """`work` on the batch's rows, all at once if memory allows (`memory.in_parts`)."""
        results, self.rows = in_parts(work, len(batch["input_ids"]), self.rows, "questions")
        return results


def pools(batches: Sequence[Batch], seed: int, which: int, states: States | None = None) -> list[Pool]:
    """One pool a modality, text first; batches without labels have pools of their own, the last ones.

    `states` given: vanilla states that are there already, and where new ones are kept, for several edits of one model.
    """
    groups: tuple[list[Batch], ...] = ([], [], [], [])
    for batch in batches:
        groups[("pixel_values" in batch) + 2 * ("labels" not in batch)].append(batch)
    return [Pool(found, (seed, which, kind), states) for kind, found in enumerate(groups) if found]
