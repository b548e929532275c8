"""The two sets that a baseline is trained on, and the passes that their batches go through the model in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mipnb.baselines.settings import Settings
from mipnb.baselines.terms import Term
from mipnb.batches import Batch, take_batch, to_device
from mipnb.joint import add_gradients, joined, shares
from mipnb.memory import in_parts
from mipnb.models import input_device
from mipnb.pools import Pool
from mipnb.precision import mixed_precision

#: what several trainings from one vanilla model, on the same batches, need to find out about it only once
Known = dict[tuple, Any]


class Side:
    """One set's term and its weight in the loss, batches, and what the vanilla model said about them."""

    def __init__(self, term: Term, found: list[Pool], weight: float = 1.0) -> None:
        self.term, self.pools, self.weight = term, found, weight
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

    def draw(self, pool: Pool, device: torch.device | str | int) -> tuple[Batch, Tensor | None]:
        """The pool's next batch, on a device, and its reference."""
        index, batch = pool.visit(device)
        return batch, self.references.get(id(pool.batches[index]))

    def loss(self, seen: Any, batch: Batch, rows: slice, known: Tensor | None, settings: Settings) -> Tensor:
        """What some rows of a batch (questions), seen so, add to the term, unweighted: a float32 scalar."""
        known = None if known is None else known[rows].to(batch["input_ids"].device)
        losses = self.term.loss(seen, take_batch(batch, rows.start, rows.stop), known, settings)
        return losses.sum() / len(batch["input_ids"]) / len(self.pools)


class Passes:
    """Pools of sides whose terms see the same: a batch of each goes through the model in one pass.

    A pass that does not fit into memory is halved, and gradients of the halves add up to its own.
    """

    def __init__(self, members: Sequence[tuple[Side, Pool]]) -> None:
        self.members = members
        self.rows = sum(pool.rows for _, pool in members)

    def backward(self, model: nn.Module, weights: Sequence[Tensor], settings: Settings) -> dict[Side, float]:
        """Add the weighted terms' gradients on the next batches to the weights' own; returns the unweighted terms."""
        drawn = [(side, *side.draw(pool, input_device(model))) for side, pool in self.members]
        batches, sees = [batch for _, batch, _ in drawn], self.members[0][0].term.sees
        whole = joined(batches)

        def part(rows: slice) -> list[tuple[Side, float]]:
            """One pass over some rows (questions) of all batches: what they add to the terms, unweighted."""
            found = []
            with mixed_precision():
                seen = sees(model, take_batch(whole, rows.start, rows.stop), settings)
                for index, own, at in shares(rows, batches):
                    side, batch, known = drawn[index]
                    loss = side.loss(_of(seen, at, batch), batch, own, known, settings)
                    found.append((side, loss))
            add_gradients(sum(side.weight * loss for side, loss in found), weights)
            return [(side, loss.item()) for side, loss in found]

        parts, self.rows = in_parts(part, len(whole["input_ids"]), self.rows, "questions")
        totals = {side: 0.0 for side, _ in self.members}
        for side, value in (pair for found in parts for pair in found):
            totals[side] += value
        return totals


def _of(seen: Any, at: slice, batch: Batch) -> Any:
    """What was seen of a batch's rows, which are there, without the padding that other batches brought."""
    if not isinstance(seen, Tensor):  # the pass was over this batch alone
        return seen
    return seen[at, : batch["input_ids"].shape[1]] if seen.dim() > 1 else seen[at]


def passes_of(sides: Sequence[Side]) -> list[Passes]:
    """The passes of a step: one a modality for sides that see the same, else one a side and modality."""
    found: dict[tuple, list[tuple[Side, Pool]]] = {}
    for side in sides:
        for pool in side.pools:
            key = (side.term.sees, *sorted(pool.batches[0]))
            found.setdefault(key, []).append((side, pool))
    return [Passes(members) for members in found.values()]
