"""Claims: one holder at a time, and a dead one's claim goes to exactly one other."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mipnb.sweeps import claims
from mipnb.sweeps.claims import claim, holder


def test_one_holds_and_the_next_gets_it_after_release(tmp_path: Path):
    first = claim(tmp_path, "run")
    assert first.held()
    assert claim(tmp_path, "run") is None
    assert claim(tmp_path, "other") is not None
    first.release()
    second = claim(tmp_path, "run")
    assert second.held()
    assert not first.held()


def test_of_many_at_once_one_wins(tmp_path: Path):
    start, won = threading.Barrier(8), []

    def take() -> None:
        start.wait()
        won.append(claim(tmp_path, "run"))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one is not None for one in won) == 1


def test_a_killed_process_holds_nothing(tmp_path: Path):
    code = f"import time; from mipnb.sweeps.claims import claim; claim({str(tmp_path)!r}, 'run')"
    code += "; print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    assert claim(tmp_path, "run") is None
    process.kill()
    process.wait()
    process.stdout.close()
    assert claim(tmp_path, "run").path.name == "run.1.json"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A claim of another machine."""
    path = tmp_path / "run.3.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid(), "started": 0, "job": "17"}))
    return path


def test_a_holder_elsewhere_is_dead_after_a_while_without_a_sign(elsewhere: Path):
    assert claim(elsewhere.parent, "run") is None
    long_ago = elsewhere.stat().st_mtime - claims.STALE - 1
    os.utime(elsewhere, (long_ago, long_ago))
    assert claim(elsewhere.parent, "run").path.name == "run.4.json"


def test_a_job_that_was_queued_again_takes_its_own_claim_at_once(elsewhere: Path, monkeypatch):
    assert holder(elsewhere)["job"] == "17"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert claim(elsewhere.parent, "run").path.name == "run.4.json"


def test_a_damaged_claim_holds_for_as_long_as_a_silent_one(elsewhere: Path):
    elsewhere.write_text("{")
    assert claim(elsewhere.parent, "run") is None
    os.utime(elsewhere, (1, 1))
    assert claim(elsewhere.parent, "run") is not None


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    with claim(tmp_path, "run") as taken:
        os.utime(taken.path, (1, 1))
        end = threading.Event()
        for _ in range(100):
            if taken.path.stat().st_mtime > 1:
                break
            end.wait(0.05)
        assert taken.path.stat().st_mtime > 1


def test_who_was_taken_for_dead_knows_it(tmp_path: Path):
    first = claim(tmp_path, "run")
    (tmp_path / "run.1.json").write_text("{}")
    assert not first.held()
    first.release()
    assert json.loads((tmp_path / "run.1.json").read_text()) == {}
    assert json.loads((tmp_path / "run.0.json").read_text())["pid"] == os.getpid()
