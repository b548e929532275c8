"""A project of three tiny notebooks with a sweep of 12 runs, whose last notebook waits or fails where it is told to."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "notebooks"
#: 01 takes the seed, 02 the scale, 03 the batch size: 2 times 01, 6 times 02, 12 times 03
SWEEP = """
name: many
grid: {steering_scale: [1.0, 2.0, 3.0], batch_size: [4, 8]}
seeds: [1, 2]
processes: 2
slurm: {jobs_at_once: 2, gpus: 1, mem_gb: 0.5, hours: 0.2}
"""
LAST = """
import time
from pyarrow import Table, parquet

if (folder / "wait").exists():
    (folder / "wait").unlink()
    time.sleep(60)
if (folder / "fail").exists():
    raise ValueError("it fails by design")
rows = [("forget", 1 / params.batch_size), ("retain", total / 100)]
columns = {"split": [r[0] for r in rows], "value": [r[1] for r in rows], "task": ["QA"] * 2}
columns |= {"method": ["edited"] * 2, "metric": ["accuracy"] * 2, "seed": [7] * 2, "run": ["x"] * 2}
parquet.write_table(Table.from_pydict(columns), folder / "results.parquet")
"""


def make_project(folder: Path, sweep: str = SWEEP) -> Path:
    """Writes the project; its sweep is params/many.yaml."""
    shutil.copytree(FIXTURES, folder / "notebooks")
    (folder / "pyproject.toml").touch()
    (folder / "params").mkdir()
    (folder / "params" / "many.yaml").write_text(sweep)
    path = folder / "notebooks" / "03_show.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST, id="last"))
    nbformat.write(notebook, path)
    table = folder / "notebooks" / "stages.yaml"
    table.write_text(table.read_text().replace("shown.json", "shown.json, results.parquet"))
    return folder
