"""The notebooks of the main job, shown again (nbval) on the artefacts of this machine's pocket run.

What that has kept (scores, trained edits, answers) is read, all else is computed anew.
"""

from pathlib import Path

import pytest
from shown_again import ROOT, STAGES, project, shows_again

from mipnb.artefacts import KEEP_PARTIAL, PARTIAL

pytestmark = pytest.mark.slow
OPTIONAL = {stage.name for stage in STAGES if stage.optional}  # take minutes each
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")) if path.stem not in OPTIONAL]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, pocket_run: Path) -> Path:
    """The project with this machine's pocket run."""
    return project(tmp_path_factory.mktemp("nbval") / "project", pocket_run)


@pytest.mark.parametrize("name", [path.name for path in reversed(NOTEBOOKS)])  # the longest first
def test_a_notebook_shows_again_what_it_shows(copy: Path, as_users: dict[str, str], name: str):
    pieces = partial_files(copy)
    shows_again(copy, name, as_users | {KEEP_PARTIAL: "1"})
    assert not pieces or partial_files(copy) == pieces, "a piece of work was made anew"


def partial_files(copy: Path) -> dict[Path, int]:
    """The pieces that the pocket run has kept, none if it was there before the tests, and when each was written."""
    files = (copy / "runs" / "pocket").glob(f"*/{PARTIAL}/*/*")
    return {file: file.stat().st_mtime_ns for file in files}
