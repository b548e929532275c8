"""nbval: the committed notebooks, executed again in a copy of the project, show what they show."""

import shutil
import subprocess
import sys
from pathlib import Path

from mipnb.artefacts import project_root
from mipnb.kept_run import lay_out
from mipnb.stages import load_stages, read_notebook

ROOT = project_root()
STAGES = load_stages(ROOT / "notebooks")


def project(folder: Path, run: Path) -> Path:
    """The project: notebooks and a run copied, the data linked."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    lay_out(run, folder / "runs" / "pocket")
    for name in ("data", "pyproject.toml", "params"):
        (folder / name).symlink_to(ROOT / name)
    return folder


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
