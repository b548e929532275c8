"""nbval: the committed notebooks of the main job, executed again on the pocket run's artefacts, show what they show.

They work in a copy of the project, so that the run itself stays as it is. Named to come after test_pocket_run, which
makes those artefacts.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mipnb.artefacts import project_root
from mipnb.stages import load_stages, read_notebook

pytestmark = pytest.mark.slow
ROOT = project_root()
OPTIONAL = {stage.name for stage in load_stages(ROOT / "notebooks") if stage.optional}  # take minutes each
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")) if path.stem not in OPTIONAL]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project: notebooks and the pocket run copied, the data linked."""
    if not (ROOT / "runs" / "pocket" / "05_evaluation" / "record.json").exists():
        pytest.fail("runs/pocket is not whole: run `mipnb run` first, or test_pocket_run.py with this")
    folder = tmp_path_factory.mktemp("nbval") / "project"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    shutil.copytree(ROOT / "runs" / "pocket", folder / "runs" / "pocket")
    for name in ("data", "pyproject.toml", "params"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_a_notebook_shows_again_what_it_shows(copy: Path, name: str):
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
        cwd=copy, env=os.environ | {"TQDM_DISABLE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
