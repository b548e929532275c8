"""nbval: the committed notebooks, executed again, show what they show.

Those of the main job work on the artefacts of this machine's pocket run, and on the pieces it has kept (scores, trained
edits, answers); those of the paper's tables and figures on what is kept of the published run (`mipnb.kept_run`). So their
long units of work are read, all else is computed anew. All work in a copy of the project.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mipnb.artefacts import KEEP_PARTIAL, PARTIAL, project_root
from mipnb.kept_run import KEPT, kept_stages, lay_out, mismatches
from mipnb.stages import load_stages, read_notebook

pytestmark = pytest.mark.slow
ROOT = project_root()
STAGES = load_stages(ROOT / "notebooks")
OPTIONAL = {stage.name for stage in STAGES if stage.optional}  # take minutes each
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")) if path.stem not in OPTIONAL]
#: the paper's tables and figures
PAPER = [stage.name for stage in STAGES if "06" <= stage.name < "13"]


def project(folder: Path, run: Path) -> Path:
    """The project: notebooks and a run copied, the data linked."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    lay_out(run, folder / "runs" / "pocket")
    for name in ("data", "pyproject.toml", "params"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, pocket_run: Path) -> Path:
    """The project with this machine's pocket run."""
    return project(tmp_path_factory.mktemp("nbval") / "project", pocket_run)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with what is kept of the published run."""
    return project(tmp_path_factory.mktemp("nbval") / "project", ROOT / KEPT)


def test_the_kept_run_is_of_these_notebooks_parameters_and_data():
    assert len(PAPER) == 7
    assert {stage.name for stage in kept_stages(STAGES)} >= set(PAPER)
    assert mismatches(STAGES) == []


@pytest.mark.parametrize("name", PAPER)
def test_a_table_or_figure_of_the_paper_comes_out_again(kept: Path, as_users: dict[str, str], name: str):
    units = set((kept / "runs" / "pocket").glob("*/items/*"))
    shows_again(kept, f"{name}.ipynb", as_users)
    assert set((kept / "runs" / "pocket").glob("*/items/*")) == units, "a unit of work was made anew"


@pytest.mark.parametrize("name", [path.name for path in reversed(NOTEBOOKS)])  # the longest first
def test_a_notebook_shows_again_what_it_shows(copy: Path, as_users: dict[str, str], name: str):
    pieces = partial_files(copy)
    shows_again(copy, name, as_users | {KEEP_PARTIAL: "1"})
    assert not pieces or partial_files(copy) == pieces, "a piece of work was made anew"


def partial_files(copy: Path) -> dict[Path, int]:
    """The pieces that the pocket run has kept, none if it was there before the tests, and when each was written."""
    files = (copy / "runs" / "pocket").glob(f"*/{PARTIAL}/*/*")
    return {file: file.stat().st_mtime_ns for file in files}


def shows_again(copy: Path, name: str, environment: dict[str, str]) -> None:
    """Execute a committed notebook in a copy of the project by nbval, which compares outputs."""
    counts = [
        cell.execution_count
        for cell in read_notebook(ROOT / "notebooks" / name).cells
        if "execution_count" in cell
    ]
    assert all(counts), "not published: nbval passes over cells without a count; run `mipnb publish`"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(copy), str(copy / "notebooks" / name)],
        cwd=copy, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
