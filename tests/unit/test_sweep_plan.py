"""A sweep's file: which runs it means, and what is refused."""

from pathlib import Path

import pytest

from mipnb.artefacts import project_root
from mipnb.plan import make_plan
from mipnb.sweeps.order import split_leaders
from mipnb.sweeps.plan import read_sweep, stored_sweep


def written(folder: Path, text: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(f"name: s\n{text}")
    return path


def test_grid_runs_models_and_seeds_multiply(tmp_path: Path):
    for name, ratio in (("a", 5), ("b", 10)):
        (tmp_path / f"{name}.yaml").write_text(f"forget_ratio: {ratio}\n")
    models = [str(tmp_path / f"{name}.yaml") for name in "ab"]
    text = f"models: {models}\ngrid: {{edit_steps: [1, 2], n_steps: [3]}}\nruns: [{{n_steps: 7}}]\n"
    text += "seeds: [1, 2]\nset: {learning_rate: 5e-3}"
    runs = read_sweep(written(tmp_path, text)).runs
    assert len(runs) == len({run.name for run in runs}) == 2 * (2 * 1 + 1) * 2
    first = runs[0]
    assert first.varied == {"model": "a", "edit_steps": 1, "n_steps": 3, "seed": 1}
    assert (first.params.forget_ratio, first.params.learning_rate) == (5, 5e-3)
    assert first.params.run_dir == f"runs/s/{first.name}"
    assert {run.params.forget_ratio for run in runs} == {5, 10}


def test_a_longer_file_keeps_its_runs_names(tmp_path: Path):
    short = {run.name for run in read_sweep(written(tmp_path, "grid: {edit_steps: [1, 2]}")).runs}
    long = {run.name for run in read_sweep(written(tmp_path, "grid: {edit_steps: [3, 2, 1]}")).runs}
    assert len(short) == 2
    assert short < long


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grid: {edit_step: [1]}", "did you mean edit_steps"),
        ("grid: {edit_steps: []}", "edit_steps has no values"),
        ("grids: {edit_steps: [1]}", "grids"),
        ("grid: {edit_steps: [1, 1]}", "two runs have the same parameters"),
        ("grid: {seed: [1]}\nseeds: [2]", "not both"),
        ("grid: {run_dir: [x]}", "run_dir is the sweep's"),
        ("slurm: {gpu: 1}", "slurm.gpu"),
        ("best: {trials: []}", "best.trials"),
        ("name: ../x", "name"),
    ],
)
def test_slips_are_told(tmp_path: Path, text: str, words: str):
    with pytest.raises(ValueError, match=words):
        read_sweep(written(tmp_path, text))


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="an example"):
        read_sweep(tmp_path / "none.yaml")


def test_workers_read_what_was_stored(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("mipnb.sweeps.plan.under_root", lambda path: tmp_path / path)
    sweep = read_sweep(written(tmp_path, "grid: {edit_steps: [1, 2]}\nbest: {trials: [1]}"))
    sweep.store()
    assert stored_sweep(sweep.folder) == sweep


def test_the_shipped_example_is_a_sweep_and_leaders_make_what_others_share():
    runs = read_sweep(project_root() / "params" / "sweep.yaml").runs
    leaders, rest = split_leaders(runs)
    assert len(runs) == 10
    # 01 takes the seed, 02 and 03 text_top_k: one leader for each of the two seeds and two sizes
    assert {(run.varied["seed"], run.varied["text_top_k"]) for run in leaders} == {
        (a, b) for a in (42, 43) for b in (8, 16)
    }
    assert len(leaders) == 4
    assert sorted(run.name for run in [*leaders, *rest]) == sorted(run.name for run in runs)
    assert "04_editing" in make_plan(rest[0].params).selected
