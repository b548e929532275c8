"""Pieces of work that do not need each other, shared out between this process and helpers beside it.

A small model on a CPU gains next to nothing by a second thread: most of what it does is too short to be shared out. Two
processes of one thread each get twice as much done.
"""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, TypeVar

import psutil
import torch
from loky import ProcessPoolExecutor

from mipnb.measuring import torch_threads
from mipnb.memory import give_back
from mipnb.progress import progress
from mipnb.report import HELPER_PEAKS, peak_bytes

__all__ = ["get_ready", "processes_of", "share_out"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Work = Callable[[Piece], Result]

_WORK: list[Work] = []  # in a helper: what it was told to do its pieces with
#: helpers that were started before there was work for them; one pool at most
_READY: list[ProcessPoolExecutor] = []


def processes_of(params: Any) -> int:
    """How many processes a notebook's work is shared between: as its parameters say on a CPU, one on a GPU.

    Never more than torch has threads here: a process that is held to one core (OMP_NUM_THREADS, a Slurm job) stays alone.
    """
    return min(params.processes, torch.get_num_threads()) if params.device == "cpu" else 1


def get_ready(processes: int) -> None:
    """Start the helpers of the next `share_out` now, so that they have imported what models need by the time it comes.

    Args:
        processes: how many will share the work, this one among them; the same as will be told to `share_out`.
    """
    if processes > 1 and not _READY:
        _READY.append(_pool(processes - 1, max(1, torch.get_num_threads() // processes)))
        for _ in range(processes - 1):
            _READY[0].submit(importlib.import_module, "mipnb.models")


def share_out(
    work: Work,
    pieces: Iterable[Piece],
    helper: Callable[[], Work],
    processes: int,
    what: str,
    cost: Callable[[Piece], float] = lambda piece: 0.0,
) -> list[Result]:
    """`[work(piece) for piece in pieces]`, some of it done by helper processes.

    Every process takes the next piece that is left, with the same number of threads: results do not depend on who did
    what. Helpers start for it, if they were not ready (`get_ready`), and end with it, also if it is interrupted or this
    process is killed.

    Args:
        work: does a piece here.
        pieces: whatever `work` takes.
        helper: called once in each helper, without arguments; what it returns does there as `work` does here. It is pickled,
            and so are pieces and results.
        processes: how many share the work, this one among them (`processes_of`).
        what: the work, for a bar.
        cost: how long a piece takes beside others: the longest are begun first, so that none is left over at the end.

    Raises:
        Exception: the first that a piece raised, here or in a helper; pieces that were begun elsewhere are dropped.
    """
    give_back()  # what the work was prepared with: helpers need room
    pieces = list(pieces)
    n_helpers = max(0, min(processes, len(pieces)) - 1)
    left = deque(sorted(range(len(pieces)), key=lambda index: cost(pieces[index]), reverse=True))
    results: dict[int, Result] = {}
    with _threads_each(n_helpers + 1) as n_threads, progress(len(pieces), what) as bar:

        def lane(do: Work) -> None:
            """Pieces one after the other, until none is left, or one has failed somewhere."""
            try:
                for index in _taken(left):
                    results[index] = do(pieces[index])
                    bar.update()
            finally:
                left.clear()

        with ThreadPoolExecutor(n_helpers + 1) as threads, _helpers(n_helpers, n_threads, helper) as asked:
            others = [threads.submit(lane, asked) for _ in range(n_helpers)]
            lane(work)
            for other in others:
                other.result()
    return [results[index] for index in range(len(pieces))]


def _taken(left: deque[int]) -> Iterator[int]:
    """The next that nobody has taken; `deque.popleft` is safe among threads."""
    while left:
        try:
            yield left.popleft()
        except IndexError:
            return


@contextmanager
def _threads_each(processes: int) -> Iterator[int]:
    """An even share of torch's threads for every process, this one at once; all of them again at the end."""
    share = max(1, torch.get_num_threads() // processes)
    with torch_threads(share):
        yield share


@contextmanager
def _helpers(count: int, n_threads: int, helper: Callable[[], Work]) -> Iterator[Work]:
    """Helper processes, and what has one of them do a piece; silent, and gone when the block is left."""
    pool = (_READY.pop() if _READY else _pool(count, n_threads)) if count else None

    def asked(piece: Piece) -> Result:
        result, process, peak = pool.submit(_do, helper, piece).result()
        HELPER_PEAKS[process] = peak
        return result

    try:
        yield asked
    finally:
        if pool:
            pool.shutdown(kill_workers=True)


def _pool(count: int, n_threads: int) -> ProcessPoolExecutor:
    """So many processes, each with so many threads; they start when they are first asked.

    What they keep between pieces (models, states of batches) is no leak: loky would start a process anew for that.
    """
    environment = {
        "OMP_NUM_THREADS": str(n_threads),
        "TQDM_DISABLE": "1",
        "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18",
    }
    return ProcessPoolExecutor(count, env=environment, initializer=_end_with, initargs=(os.getpid(),))


def _end_with(process: int) -> None:
    """In a helper: end when that process does, even if it is killed while the helper is at work."""

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(process).wait()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _do(helper: Callable[[], Work], piece: Piece) -> tuple[Result, int, int]:
    """In a helper: the piece's result, the process's number and its peak memory in bytes."""
    if not _WORK:
        _WORK.append(helper())
    return _WORK[0](piece), os.getpid(), peak_bytes(alone=False)
