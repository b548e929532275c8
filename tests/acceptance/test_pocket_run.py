"""The pocket run at default parameters: what it has to reach."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mipnb.artefacts import project_root, read_json
from mipnb.evaluation import COLUMNS, read_results
from mipnb.params import Params
from mipnb.stages import load_stages
from mipnb.verdict import verdict, verdict_text

pytestmark = pytest.mark.slow
ROOT = project_root()
RUN = ROOT / "runs" / "pocket"
MOST_GB = 3.0


@pytest.fixture(scope="module")
def run() -> Path:
    """runs/pocket, made or brought up to date by `mipnb run`."""
    command = [sys.executable, "-m", "mipnb.cli", "run"]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return RUN


@pytest.fixture(scope="module")
def results(run: Path) -> pd.DataFrame:
    return read_results(run / "05_evaluation" / "results.parquet")


def test_the_vanilla_model_meets_its_bars(run: Path):
    bars = pd.read_parquet(run / "01_vanilla_model" / "bars.parquet")
    assert len(bars) > 10
    assert bars.met.all(), bars[~bars.met].to_string()


def test_the_edit_meets_every_demand(results: pd.DataFrame):
    table = verdict(results)
    assert len(table) == 26
    assert table.met.all(), verdict_text(table)


def test_random_neurons_stand_beside_it(results: pd.DataFrame):
    assert list(results.columns) == COLUMNS
    cells = results.groupby("method").apply(lambda part: set(zip(part.split, part.task, strict=True)))
    assert cells["random"] == cells["edited"] == cells["vanilla"] == cells["prune"]
    seeds = results.groupby("method").seed.nunique()
    assert seeds["edited"] == 3
    assert seeds["random"] == Params().n_random_edits == 2
    print(verdict_text(verdict(results, "random"), "random"))


def test_memory_stays_within_bounds_and_time_is_told(run: Path):
    seconds, peak = 0.0, 0.0
    for stage in (stage for stage in load_stages(ROOT / "notebooks") if not stage.optional):
        seconds += read_json(run / stage.name / "record.json")["seconds"]
        peak = max(peak, read_json(run / stage.name / "usage.json")["peak_memory_gb"])
    print(f"pocket run: {seconds:.0f} s, peak memory {peak:.2f} GB")
    assert peak <= MOST_GB
