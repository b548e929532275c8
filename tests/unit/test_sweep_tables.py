"""What a sweep makes of its runs: scores, the best by the rule, plots."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mipnb.headline import headline, last_results, results_file
from mipnb.sweeps.collect import best
from mipnb.sweeps.plan import Rule
from mipnb.sweeps.plots import marginal_figure, parallel_coordinates, save_plots


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        ("a", 1, 1, 0.1, 0.7),
        ("b", 1, 2, 0.3, 0.9),
        ("c", 2, 1, 0.1, 0.75),
        ("d", 2, 2, 0.1, 0.75),
        ("e", 3, 1, 0.9, 1.0),
    ]
    return pd.DataFrame(rows, columns=["run", "edit_steps", "seed", "forget", "kept"])


def test_the_best_keeps_most_of_those_that_forget_enough_seeds_averaged(scores):
    found = best(scores, Rule(trials=[1], forget_at_most=0.25))
    assert (found.edit_steps, found.n_seeds) == (1, 2)  # 0.8 on average; 3 keeps more, but has not forgotten
    assert best(scores, Rule(trials=[1], forget_at_most=0.15)).edit_steps == 2
    assert (
        best(scores, Rule(trials=[1], forget_at_most=0.05)).edit_steps == 2
    )  # none: the one that forgets most
    assert best(scores, Rule(trials=[1], forget_at_most=0.95)).edit_steps == 3


def test_nothing_is_best_of_nothing():
    with pytest.raises(ValueError, match="nothing to choose from"):
        best(pd.DataFrame(), Rule(trials=[1]))


def test_scores_are_accuracies_of_one_method_without_people_nobody_knows(tmp_path):
    rows = [
        ("forget", "edited", "accuracy", 0.2), ("test_forget", "edited", "accuracy", 0.4),
        ("retain", "edited", "accuracy", 1.0),
        ("celebrity", "edited", "accuracy", 0.5), ("holdout", "edited", "accuracy", 0.0), ("forget", "edited", "rougeL", 0.9),
        ("forget", "vanilla", "accuracy", 1.0),
    ]  # fmt: skip
    pd.DataFrame(rows, columns=["split", "method", "metric", "value"]).to_parquet(tmp_path / "r.parquet")
    assert headline(tmp_path / "r.parquet") == pytest.approx({"forget": 0.3, "kept": 0.75})
    assert headline(tmp_path / "r.parquet", "vanilla") == {"forget": 1.0}


def test_a_run_is_told_by_its_evaluation_and_a_sweep_by_what_it_ran_last(tmp_path):
    assert results_file(tmp_path) is last_results(tmp_path) is None
    files = [tmp_path / name / "results.parquet" for name in ("05_evaluation", "06_baselines")]
    for file in reversed(files):
        file.parent.mkdir()
        file.touch()
        assert last_results(tmp_path) == files[1]
        assert results_file(tmp_path) == file


def test_lines_run_through_every_runs_values(scores):
    table = scores.assign(direction=["input", "shared", "input", "shared", "input"], one=7)
    fig, ax = plt.subplots()
    parallel_coordinates(table, ["edit_steps", "direction", "one", "kept"], "kept", ax)
    lines = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 4]
    np.testing.assert_allclose(lines[0], [0, 0, 0.5, 0])
    np.testing.assert_allclose(lines[4], [1, 0, 0.5, 1])
    assert {"input", "shared", "1", "2", "3"} <= {text.get_text() for text in ax.texts}
    plt.close(fig)


def test_margins_are_means_of_the_runs_with_a_value(scores):
    fig = marginal_figure(scores, ["edit_steps", "seed"], ["forget", "kept"])
    kept = fig.axes[2].lines  # second row, first column
    np.testing.assert_allclose(kept[1].get_ydata(), [0.8, 0.75, 1.0])
    assert len(kept[0].get_ydata()) == 5
    plt.close(fig)


def test_both_plots_are_saved_and_none_without_scores(scores, tmp_path):
    source = {"notebook": "mipnb sweep", "parameters": {}, "results": []}
    assert save_plots(scores, tmp_path, source) == ["sweep_parallel", "sweep_marginal"]
    assert (tmp_path / "sweep_marginal.png").is_file()
    assert save_plots(scores.drop(columns=["forget", "kept"]), tmp_path, source) == []
