"""Out of memory: go on with half as many rows at a time, and say so; and memory that is free, given back."""

from __future__ import annotations

import ctypes
import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the CPU's allocator, has no memory left."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or should_reduce_batch_size(error)


def fitting(work: Callable[[int], Result], most: int, what: str = "rows") -> tuple[Result, int]:
    """The result of `work(most)`; of half as many, and half again, as often as memory runs out.

    Args:
        work: takes a number of rows, at least 1. It is called anew after an error, so nothing that it does before
            one may count.
        most: the number to begin with.
        what: what the rows are, for the message.

    Returns:
        The result, and the number that fitted.

    Raises:
        torch.OutOfMemoryError, RuntimeError, MemoryError: as `work` raised it, when a single row does not fit.
    """
    while True:
        try:
            return work(most), most
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if most == 1:
                error.add_note(
                    f"1 of {what} at a time does not fit: choose a larger device or a smaller dtype"
                )
                raise
        # the error is let go of by now, and with it all that its frames held
        clear_device_cache(garbage_collection=True)
        told = f"out of memory with {most} {what} at a time: going on with {most // 2}"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
        most //= 2


def in_parts(
    work: Callable[[slice], Result], count: int, most: int, what: str = "rows"
) -> tuple[list[Result], int]:
    """Results of `work` on consecutive slices of range(count), each as large as memory allows.

    Args:
        work: see `fitting`; takes the slice.
        count: how many rows there are.
        most: rows a slice at first.
        what: what the rows are.

    Returns:
        The results in order, and the number to begin with next time: lower than `most` if memory ran out.
    """
    results: list[Result] = []
    start = 0
    while start < count:
        asked = min(most, count - start)
        result, size = fitting(lambda n, start=start: work(slice(start, start + n)), asked, what)
        results.append(result)
        start, most = start + size, most if size == asked else size
    return results, most


def give_back() -> None:
    """Give the memory of what is not referred to any more back to the system, where the C library can (glibc's).

    It keeps what small and middling tensors lay in, for tensors to come; other processes cannot use it.
    """
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
