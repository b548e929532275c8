"""Out of memory: halved, said, gone on with; anything else is an error as ever. And what is free goes back."""

import platform
import subprocess
import sys

import pytest
import torch

from mipnb.memory import fitting, in_parts, is_out_of_memory

CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError(CPU),
    MemoryError(),
]


def _tight(limit, error, calls):
    """Work that holds at most `limit` rows."""

    def work(rows):
        calls.append(rows)
        size = rows if isinstance(rows, int) else rows.stop - rows.start
        if size > limit:
            raise error
        return rows

    return work


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu", "python"])
def test_memory_errors_halve_and_say_so(error):
    calls = []
    with pytest.warns(RuntimeWarning, match="out of memory") as told:
        found, size = fitting(_tight(3, error, calls), 13, "questions")
    assert (found, size, calls) == (3, 3, [13, 6, 3])
    assert [str(one.message) for one in told] == [
        "out of memory with 13 questions at a time: going on with 6",
        "out of memory with 6 questions at a time: going on with 3",
    ]


def test_other_errors_are_no_matter_of_size():
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        fitting(_tight(1, RuntimeError("shapes do not fit"), []), 8)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_one_row_that_does_not_fit_is_an_error_that_says_what_to_do():
    calls = []
    with pytest.raises(torch.OutOfMemoryError) as caught:
        fitting(_tight(0, ERRORS[0], calls), 4, "questions")
    assert calls == [4, 2, 1]
    assert "larger device" in caught.value.__notes__[-1]


@pytest.mark.filterwarnings("ignore:out of memory")
def test_parts_cover_everything_once_and_the_size_is_remembered():
    calls = []
    parts, most = in_parts(_tight(3, ERRORS[0], calls), 11, 8)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(11))
    assert most == 2
    assert len(calls) == 2 + 6, "8 and 4 fail once; nothing larger than 2 is tried again"


def test_a_short_last_part_does_not_lower_the_size():
    parts, most = in_parts(lambda rows: rows, 11, 4)
    assert ([part.stop for part in parts], most) == ([4, 8, 11], 4)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_what_the_failed_attempt_held_is_let_go_before_the_next():
    alive = []

    class Big:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def work(rows):
        before = len(alive)
        held = Big()
        if rows > 1:
            raise torch.OutOfMemoryError("out of memory")
        assert held
        return before

    assert fitting(work, 4)[0] == 0


def test_what_lay_between_things_still_held_goes_back_to_the_system():
    """As tensors of a preparation do that small ones, still in use, lie between; the C library would keep it all."""
    script = """
import psutil, torch
from mipnb.memory import give_back
held, let_go = [], []
for _ in range(3000):
    let_go.append(torch.ones(16_000))
    held.append(torch.ones(100))
taken = psutil.Process().memory_info
let_go.clear()
before = taken().rss
give_back()
print(before - taken().rss)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    least = 150 * 2**20 if platform.libc_ver()[0] == "glibc" else 0  # of 183 MB let go
    assert int(done.stdout) >= least
