"""Memory: how much one sample of a pass takes beside the weights, and how many fit in a budget.

What autograd keeps for the backward pass is counted: one sample goes through the model with every gate open, and the storages
that are saved are added up. What lives in passing is an allowance (TRANSIENT), held against measured peaks by tests. It is the
same on a processor and on an accelerator.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mipnb.parts import dearest
from mipnb.probe import Probe

TRANSIENT = 4  # tensors of the largest saved size that live at one time beside what is saved


def rows_within(memory_gb: float, probe: Probe, n_steps: int) -> int:
    """How many rows (samples x copies) of a pass fit in a budget.

    Args:
        memory_gb: the budget, GB of 1e9 bytes, beside the weights.
        probe: the whole batch.
        n_steps: points of the grid, whose states are kept from layer to layer.

    Raises:
        ValueError: a budget that is no finite number; not even one sample fits: the message says how much it takes.
    """
    if not math.isfinite(memory_gb):
        raise ValueError(f"memory_gb is {memory_gb}; expected a finite number of GB, or None for no limit")
    alone = [replace(probe, batch=batch) for batch in dearest(probe.batch)]
    needed, probe = max(((row_bytes(one, n_steps), one) for one in alone), key=lambda pair: pair[0])
    rows = int(memory_gb * 1e9 // needed)
    if rows < 1:
        raise ValueError(
            f"memory_gb is {memory_gb:g}, but one sample of {_tokens(probe)} tokens takes about {needed / 1e9:.3g} GB "
            f"beside the model's weights: raise memory_gb, or shorten the questions or the pictures"
        )
    return rows


def row_bytes(probe: Probe, n_steps: int) -> int:
    """Bytes that one row of a pass takes: saved for the backward pass, in passing, and kept between passes.

    Args:
        probe: one sample.
        n_steps: see `rows_within`.
    """
    one = replace(probe, max_rows=1)
    saved: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in probe.model.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    gates = {layer: one.ones(1, 1, one.n_neurons) for layer in range(len(one.ffns))}
    one.unscaled.value  # made before the count begins: its pass is another one  # noqa: B018
    with saved_tensors_hooks(count, lambda tensor: tensor):
        found = one.gradients(gates, list(gates))
    results = 3 * sum(gradient.nbytes for gradient in found)  # of a pass, their sum, and those at the point 1
    return sum(saved.values()) + TRANSIENT * max(saved.values(), default=0) + results + _kept(one, n_steps)


def _kept(one: Probe, n_steps: int) -> int:
    """States that `scaled_path` keeps for one sample: every layer's output and the last activation, at every grid point."""
    start = one.unscaled.start
    if start is None:
        return 0
    width = start.ffn.output.out_features * start.activation.element_size()
    positions = start.activation.numel() // one.n_neurons
    return n_steps * (start.activation.nbytes + len(one.ffns) * positions * width)


def _tokens(probe: Probe) -> int:
    return probe.batch["labels"].shape[1]
