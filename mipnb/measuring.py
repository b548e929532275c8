"""What work really takes: a model's passes, its peak of live tensor memory, its time beside that of other work."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass
class Counted:
    """Passes seen: forward passes begun (one that stops at a layer counts), backward passes made."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted_passes(model: nn.Module) -> Iterator[Counted]:
    """Counts a model's forward passes by a hook, and calls into autograd, while the context lasts."""
    seen = Counted()

    def began(module: nn.Module, args: tuple) -> None:
        seen.forward += 1

    handle = model.register_forward_pre_hook(began)
    run_backward = torch.autograd.graph._engine_run_backward
    callers = (torch.autograd, torch.autograd.graph)

    def counted(*args, **options):
        seen.backward += 1
        return run_backward(*args, **options)

    for module in callers:
        module._engine_run_backward = counted
    try:
        yield seen
    finally:
        handle.remove()
        for module in callers:
            module._engine_run_backward = run_backward


class LiveMemory(TorchDispatchMode):
    """Bytes of all tensor storages that operations make while the context lasts, now and at the peak.

    What CUDA's `max_memory_allocated` is for a GPU, on any device, apart from what a single kernel uses inside.
    A model's own weights, given at the start, do not count.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        kept = (*model.parameters(), *model.buffers())
        self._known = {tensor.untyped_storage()._cdata for tensor in kept}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_iter(found):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return found

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or size == 0:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_bytes(call: Callable[[], object], model: nn.Module) -> int:
    """The most that tensors made during a call take at one time, the model's weights apart; recording slows the call."""
    with LiveMemory(model) as memory:
        call()
    return memory.peak


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Torch works with that many threads while the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(call: Callable[[], object]) -> float:
    """Time of a call: on CUDA by the clock, else the processor's, of one thread (of more, their waiting for each other would
    count, too)."""
    with torch_threads(1):
        start = _now()
        call()
        return _now() - start


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, one after the other in turn, so that whatever else the machine does hits all of them.

    Every call is made once before, uncounted.
    """
    with torch_threads(1):
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call))
    return seconds


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
