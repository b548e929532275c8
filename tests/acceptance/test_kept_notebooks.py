"""The notebooks of the paper's tables and figures, shown again (nbval) from what `mipnb.kept_run` has of the published run.

Their long units of work are read, all else is computed anew.
"""

from pathlib import Path

import pytest
from shown_again import ROOT, STAGES, project, shows_again

from mipnb.kept_run import KEPT, kept_stages, mismatches

pytestmark = pytest.mark.slow
PAPER = [stage.name for stage in STAGES if "06" <= stage.name < "13"]


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
