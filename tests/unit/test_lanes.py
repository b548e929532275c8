"""Work shared between processes: everything done once, in order, with even threads; errors and kills leave nobody behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from mipnb import report
from mipnb.lanes import get_ready, processes_of, share_out
from mipnb.params import subset


def slow_square(piece):
    time.sleep(0.2)
    return piece**2, os.getpid(), torch.get_num_threads()


def make_slow_square():
    return slow_square


def make_failing():
    def fail(piece):
        raise ValueError(f"piece {piece} cannot be done in a helper")

    return fail


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_pieces_are_shared_and_come_back_in_order(two_threads, monkeypatch):
    monkeypatch.setattr(report, "HELPER_PEAKS", report.HELPER_PEAKS)
    report.HELPER_PEAKS.clear()
    alone = report.peak_memory_gb()
    found = share_out(lambda p: slow_square(p), range(40), make_slow_square, 2, "squares")
    assert [square for square, _, _ in found] == [piece**2 for piece in range(40)]
    processes = {process for _, process, _ in found}
    assert len(processes) == 2
    assert os.getpid() in processes
    assert {threads for _, _, threads in found} == {1}, "each process has its half of the threads"
    assert torch.get_num_threads() == 2
    assert not any(psutil.pid_exists(process) for process in processes - {os.getpid()})
    assert report.peak_memory_gb() > alone + 0.1, "a helper's memory counts"


def make_hoarding():
    kept = []

    def hoard(piece):
        kept.append(torch.ones(2**27))  # 512 MB
        time.sleep(1.2)
        return os.getpid()

    return hoard


def test_a_helper_that_keeps_much_is_not_replaced(two_threads):
    processes = share_out(lambda piece: time.sleep(3) or os.getpid(), range(6), make_hoarding, 2, "hoards")
    assert processes.count(os.getpid()) < 5
    assert len(set(processes)) == 2, "it would load models and data anew"


def test_helpers_that_were_made_ready_do_the_work(two_threads):
    before = set(psutil.Process().children(recursive=True))
    get_ready(2)
    get_ready(2)  # once is enough
    while not (ready := set(psutil.Process().children(recursive=True)) - before):
        time.sleep(0.05)
    found = share_out(slow_square, range(40), make_slow_square, 2, "squares")
    others = {process for _, process, _ in found} - {os.getpid()}
    assert len(others) == 1
    assert others <= {process.pid for process in ready}
    assert {threads for _, _, threads in found} == {1}
    again = share_out(slow_square, range(10), make_slow_square, 2, "squares")
    assert others.isdisjoint(process for _, process, _ in again), (
        "they end with the work that they were made ready for"
    )


def test_alone_nobody_is_made_ready():
    before = set(psutil.Process().children(recursive=True))
    get_ready(1)
    assert set(psutil.Process().children(recursive=True)) == before


def test_alone_there_is_no_other_process(two_threads):
    found = share_out(slow_square, range(3), make_failing, 1, "squares")
    assert {process for _, process, _ in found} == {os.getpid()}
    assert {threads for _, _, threads in found} == {2}
    assert share_out(slow_square, [], make_failing, 2, "squares") == []


def test_the_longest_are_begun_first_and_the_order_stays():
    begun = []
    found = share_out(lambda p: begun.append(p) or -p, [2, 5, 1, 5, 3], make_failing, 1, "ordered", float)
    assert begun == [5, 5, 3, 2, 1]
    assert found == [-2, -5, -1, -5, -3]


def test_the_error_of_a_helper_is_raised_here(two_threads):
    done = []

    def here(piece):
        time.sleep(0.2)
        done.append(piece)

    with pytest.raises(ValueError, match="cannot be done in a helper"):
        share_out(here, range(1000), make_failing, 2, "failing")
    assert len(done) < 500, "after it nothing more is begun"
    assert torch.get_num_threads() == 2


def test_an_error_here_does_not_wait_for_a_helper(two_threads):
    began = time.monotonic()
    with pytest.raises(KeyError, match="here"):
        share_out(_fail_late, range(4), _make_endless, 2, "failing")
    assert time.monotonic() - began < 60


def _fail_late(piece):
    time.sleep(6)  # the helper is at work by then
    raise KeyError("here")


def _make_endless():
    return lambda piece: time.sleep(600)


def test_helpers_die_with_the_process_that_asked_them(tmp_path):
    """Killed outright, as by a full memory, with no chance to tell anybody."""
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(here)!r}); import torch; torch.set_num_threads(2)\n"
        "from mipnb.lanes import share_out; import test_lanes, time\n"
        "share_out(lambda piece: time.sleep(600), range(9), test_lanes._make_endless, 2, 'sleeping')"
    )
    process = psutil.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(helpers := process.children(recursive=True)) < 2 and time.monotonic() < until:
        time.sleep(0.1)  # a helper and loky's tracker of resources
    time.sleep(5)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(helpers, timeout=30)
    assert not alive, [one.cmdline() for one in alive]


def test_a_gpu_or_a_single_core_is_not_shared(two_threads):
    asked = subset({"processes": 4, "device": "cpu"})
    assert processes_of(asked) == 2
    torch.set_num_threads(1)
    assert processes_of(asked) == 1
    torch.set_num_threads(2)
    assert processes_of(subset({"processes": 4, "device": "cuda:0"})) == 1
