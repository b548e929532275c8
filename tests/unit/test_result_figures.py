"""The figures of editing and evaluating: what is drawn, where."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mipnb.evaluation import COLUMNS
from mipnb.result_figures import bars_figure, bars_table, training_figure


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def results() -> pd.DataFrame:
    rows = [
        ["r", "m", "b", method, 5, seed, split, "QA", "text", "accuracy", value, 9, 0.0, 1.0]
        for method, seed, value in (
            ("edited", 1, 0.2),
            ("edited", 2, 0.4),
            ("random", 1, 0.9),
            ("vanilla", 1, 1.0),
        )
        for split in ("forget", "retain")
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_bars_are_means_over_seeds_in_the_order_of_methods():
    table = bars_table(results(), ["forget"])
    assert table.method.tolist() == ["vanilla", "edited", "random"]
    assert table.value.round(9).tolist() == [1.0, 0.3, 0.9]
    axes = bars_figure(results()).axes
    assert [ax.get_title() for ax in axes] == ["forget", "retain"]
    assert [round(bar.get_height(), 9) for bar in axes[0].patches] == [1.0, 0.3, 0.9]


def test_training_has_a_panel_a_path():
    losses = {"loss_forget": [2.0, 1.0], "loss_retain": [0.1, 0.2], "loss_ce": [0.3, 0.1]}
    steps = pd.DataFrame({"step": [0, 1], "seed": 4, **losses})
    history = pd.concat([steps.assign(method="edited"), steps.assign(method="random")])
    axes = training_figure(history, smooth=1).axes
    assert [ax.get_title() for ax in axes] == ["located path", "random path"]
    assert axes[0].get_lines()[0].get_ydata().tolist() == [2.0, 1.0]


def test_a_split_that_the_benchmark_lacks_has_no_panel():
    fig = bars_figure(results(), ["forget", "retain", "test_forget", "test_retain"])
    assert [ax.get_title() for ax in fig.axes] == ["forget", "retain"]
