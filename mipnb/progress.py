"""How far long work is: a tqdm bar with the time left in a notebook or terminal, log lines in batch, nothing in tests.

`mipnb run` and `mipnb sweep` start kernels with MIPNB_PROGRESS=lines. Bars are silent where TQDM_DISABLE is set and below
pytest (nbval), whose comparison of outputs they would break.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

__all__ = ["LINES", "Counter", "progress", "quiet"]

#: the environment that makes a kernel print lines
LINES = {"MIPNB_PROGRESS": "lines"}
#: seconds between two lines
EVERY = 10.0
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
_GROUP = "mipnb"  # our bars stay on where those of loading and downloading are off (`mipnb.models`)


class Counter(Protocol):
    """What `progress` yields: told how many more pieces are done."""

    def update(self, n: int = 1) -> object: ...


@contextlib.contextmanager
def progress(total: int, what: str, done: int = 0) -> Iterator[Counter]:
    """Shows how far a piece of work is; the block calls `update(n)`.

    Args:
        total: pieces in all.
        what: the work, e.g. "locating (text)".
        done: pieces that an earlier, stopped run has left; they do not count for the time left.
    """
    if silent():
        yield _Nothing()
    elif os.environ.get("MIPNB_PROGRESS") == "lines":
        yield _Lines(total, what, done)
    else:
        from huggingface_hub.utils import enable_progress_bars, tqdm  # tqdm.auto, whose bars can be grouped

        with (
            warnings.catch_warnings()
        ):  # HF_HUB_DISABLE_PROGRESS_BARS switches ours off as well, without a word
            warnings.simplefilter("ignore")
            enable_progress_bars(_GROUP)
        with tqdm(total=total, desc=what, initial=done, leave=False, name=_GROUP) as bar:
            yield bar


def silent() -> bool:
    """Whether bars and lines are switched off."""
    return (
        os.environ.get("TQDM_DISABLE", "0").lower() not in ("", "0", "false")
        or "PYTEST_VERSION" in os.environ
        or _QUIET.get()
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars and lines while the context lasts, in this thread: for work that shows by itself how far it is."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


class _Nothing:
    def update(self, n: int = 1) -> None:
        """Says nothing."""


class _Lines:
    """A line on standard error every `EVERY` seconds, and none for what takes less."""

    def __init__(self, total: int, what: str, done: int) -> None:
        self.total, self.what, self.done, self.initial = total, what, done, done
        self.started = self.told = time.monotonic()

    def update(self, n: int = 1) -> None:
        """Counts, and says so if the last line was long ago."""
        self.done += n
        now = time.monotonic()
        if now - self.told >= EVERY:
            self.told = now
            left = (now - self.started) / max(1, self.done - self.initial) * (self.total - self.done)
            took = f"{clock(now - self.started)}, {clock(left)} left"
            print(f"{self.what}: {self.done} of {self.total}, {took}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3:20 min, 2:05 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    large, small, unit = (
        (seconds / 60, seconds % 60, "min") if seconds < 3600 else (seconds / 3600, seconds / 60 % 60, "h")
    )
    return f"{int(large)}:{int(small):02d} {unit}"
