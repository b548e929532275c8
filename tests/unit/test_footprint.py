"""The memory of a run: of all its processes together, at one time."""

import subprocess
import sys
import time

from mipnb.footprint import Footprint, taken_bytes
from mipnb.outcome import Outcome, table

MB = 2**20
HOLDS = "held = b'x' * (300 << 20); print(len(held), flush=True); input()"


def holding(script: str) -> subprocess.Popen:
    """A process that has memory to itself until it is sent a line."""
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    return child


def test_a_childs_child_counts_and_only_while_it_lives():
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS!r}])"
    before = taken_bytes()
    with Footprint() as memory:
        child = holding(inner)
        during = taken_bytes()
        time.sleep(1)
        child.communicate("\n")
    assert 300 * MB < during - before < 360 * MB
    assert abs(memory.peak_gb - during / 2**30) < 0.05
    assert taken_bytes() < before + 50 * MB


def test_what_comes_one_after_the_other_is_not_added_up():
    with Footprint() as memory:
        for _ in range(2):
            child = holding(HOLDS)
            time.sleep(0.7)
            child.communicate("\n")
    assert memory.peak_gb < (taken_bytes() + 400 * MB) / 2**30


def test_the_line_of_totals_has_it_if_anything_ran():
    one = Outcome("01_vanilla_model")
    one.state, one.seconds = "ran", 2.0
    assert table([one], peak_gb=2.534).splitlines()[-1].split() == ["this", "run", "2.0", "2.53"]
    one.state = "up to date"
    assert table([one], peak_gb=2.534).splitlines()[-1].split() == ["this", "run", "0.0", "-"]
