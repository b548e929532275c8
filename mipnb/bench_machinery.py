"""What the machinery costs, measured: `python -m mipnb.bench_machinery runs` and `... sweep`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pyarrow as pa
from pyarrow import parquet

from mipnb.artefacts import write_json

_CELL = 'run_dir: str = "runs/x"\nseed: int = 0'
_WORK = """import pathlib
folder = pathlib.Path(run_dir) / "{stage}"
folder.mkdir(parents=True, exist_ok=True)
(folder / "out.json").write_text(str(seed))"""
_STAGES = ("01_a", "02_b", "03_c")


def make_project(root: Path) -> None:
    """A project of three notebooks that do next to nothing."""
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    table = {name: {"reads": list(_STAGES[:at]), "writes": ["out.json"]} for at, name in enumerate(_STAGES)}
    (root / "notebooks" / "stages.yaml").write_text(json.dumps(table))
    for name in _STAGES:
        cells = [nbformat.v4.new_code_cell(_CELL, metadata={"tags": ["parameters"]})]
        cells.append(nbformat.v4.new_code_cell(_WORK.format(stage=name)))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")


def make_runs(root: Path, count: int) -> None:
    """A folder of runs as `mipnb run` leaves them, with results of the pocket run's size."""
    splits = ("forget", "retain", "test_forget", "test_retain", "celebrity", "holdout")
    tasks = ("VQA", "QA", "VGEN", "GEN", "CLOZE_VQA", "CLOZE_QA")
    rows = list(itertools.product(splits, tasks, ("vanilla", "prune", "edited", "random")))
    columns = {"split": [r[0] for r in rows], "task": [r[1] for r in rows], "method": [r[2] for r in rows]}
    columns |= {"metric": ["accuracy"] * len(rows), "value": [0.5] * len(rows)}
    for number in range(count):
        for name in _STAGES:
            folder = root / "runs" / f"run{number:04d}" / name
            write_json(
                folder / "record.json", {"seconds": 1.0, "inputs": {f"file{i}": "0" * 64 for i in range(100)}}
            )
            write_json(folder / "usage.json", {"seconds": 1.0, "peak_memory_gb": 0.5})
        parquet.write_table(pa.table(columns), folder / "results.parquet")


def runs(count: int = 1000) -> None:
    """Times `mipnb runs`, process and all, on so many runs."""
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder))
        make_runs(Path(folder), count)
        code = "from mipnb.listing import command; from types import SimpleNamespace as S; command(S(method='edited'))"
        for _ in range(3):
            seconds, said = _timed([sys.executable, "-c", code], folder)
            print(f"mipnb runs, {count} runs: {seconds:.2f} s, {len(said.splitlines())} lines")


def sweep(count: int = 4) -> None:
    """Times a sweep of so many runs, one at a time, against papermill's own time for the same notebooks."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root)
        (root / "params").mkdir()
        (root / "params" / "s.yaml").write_text(f"name: s\nseeds: {list(range(count))}\n")
        code = "from mipnb.sweeps.call import run_sweep; from mipnb.sweeps.plan import read_sweep; run_sweep(read_sweep('s'))"
        machinery, said = _timed([sys.executable, "-c", code], folder)
        told = "\n".join(
            f"papermill.execute_notebook('notebooks/{name}.ipynb', 'o.ipynb', kernel_name='python3', progress_bar=False)"
            for name in _STAGES
        )
        alone = sum(
            _timed([sys.executable, "-c", f"import papermill\n{told}"], folder)[0] for _ in range(count)
        )
    print(said.splitlines()[-1])
    print(
        f"a run of {len(_STAGES)} notebooks: {machinery / count:.2f} s in a sweep, {alone / count:.2f} s by papermill"
    )
    print(f"the machinery costs {(machinery - alone) / count:.2f} s a run")


def _timed(command: list[str], folder: str) -> tuple[float, str]:
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout
