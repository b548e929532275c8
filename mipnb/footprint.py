"""The memory of a command together with all that it has started: kernels, and the helpers of kernels."""

from __future__ import annotations

from contextlib import suppress
from threading import Event, Thread

import psutil

__all__ = ["Footprint", "taken_bytes"]

_EVERY = 0.5  # seconds from one look to the next


class Footprint:
    """The most memory that this process and all below it take at a time while the context lasts, looked at twice a second.

    Attributes:
        peak_gb: the most seen, GB (2^30 bytes).
    """

    def __init__(self) -> None:
        self.peak_gb = 0.0
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Footprint:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_gb = max(self.peak_gb, taken_bytes() / 2**30)
            if self._over.wait(_EVERY):
                return


def taken_bytes() -> int:
    """What this process and all below it take now, bytes.

    What several have mapped is divided among them where the system tells (Linux), and left out elsewhere.
    """
    this, total = psutil.Process(), 0
    for process in [this, *this.children(recursive=True)]:
        with suppress(psutil.Error):  # it has ended meanwhile, or is not ours
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
    return total
