"""How the tests are shared between two processes (`make test`, by pytest-xdist), and the pocket run that some of them read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from mipnb.artefacts import PARTIAL, project_root
from mipnb.state import RECORD

ROOT = project_root()
TOTALS = ".pocket_run.txt"  # beside the run: the memory it took
#: notebooks that keep pieces of their work, if asked to
WITH_PIECES = ("02_attribution", "04_editing", "05_evaluation")
#: the longest files, in an order in which two processes need not wait: the pocket run beside the quick one, then what is
#: shown again, of kept results beside that of the pocket run
LONGEST = [
    "test_pocket_run.py",
    "test_quick_run.py",
    "test_kept_notebooks.py",
    "test_published_notebooks.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files are begun first; a file's tests stay together (`--dist loadfile`)."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def as_users() -> dict[str, str]:
    """The environment of a command as users give it, with as many threads as there are; bars are off.

    Idle threads sleep at once: they would wait in vain for cores that the other test process uses.
    """
    kept = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return kept | {"TQDM_DISABLE": "1", "GOMP_SPINCOUNT": "0"}


@pytest.fixture(scope="session")
def pocket_run(as_users: dict[str, str]) -> Path:
    """runs/pocket, made or brought up to date by `mipnb run`; another test process waits for it.

    Its pieces are kept: nbval then shows the same notebooks again without training once more. A run made without them
    (`make run`) is made again from the first notebook that has none.
    """
    run = ROOT / "runs" / "pocket"
    run.parent.mkdir(exist_ok=True)
    with FileLock(run.parent / ".tests.lock"):
        command = [sys.executable, "-m", "mipnb.cli", "run", "--keep-partial", *without_pieces(run)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=as_users)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    totals = done.stdout.splitlines()[-1].split()
    if totals[-1] != "-":  # something ran
        (run.parent / TOTALS).write_text(totals[-1])
    return run


@pytest.fixture(scope="session")
def together_gb(pocket_run: Path) -> float | None:
    """What all processes of the pocket run took at a time when tests last made it; None if they never have."""
    totals = pocket_run.parent / TOTALS
    return float(totals.read_text()) if totals.exists() else None


def without_pieces(run: Path) -> list[str]:
    """The option that makes anew what a run has made without keeping its pieces; none if there is nothing of the kind."""
    made = [run / name for name in WITH_PIECES if (run / name / RECORD).is_file()]
    lacking = [folder.name for folder in made if not any((folder / PARTIAL).glob("*/*"))]
    return ["--from", lacking[0]] if lacking else []
