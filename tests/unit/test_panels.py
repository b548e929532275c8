"""Panels and pictures of single notebooks show what their tables say."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from small_benchmarks import authors, clear

from mipnb.agreement import path_table
from mipnb.benchmarks import forget_ids, load_people
from mipnb.gallery import gallery, portrait_grid, question_table
from mipnb.panels import (
    BAD,
    GOOD,
    bars_verdict,
    change_bars,
    concentration_curves,
    demand_bars,
    gap_curves,
    loss_curves,
    path_marks,
)
from mipnb.paths import NeuronPath

ROOT = "data/pocket"
BARS = pd.DataFrame(
    [("knows", "forget", "VQA", "accuracy", 1.0, ">= 0.98", True),
     ("knows", "forget", "QA", "accuracy", 0.5, ">= 0.98", False)],
    columns=["demand", "split", "task", "metric", "measured", "bound", "met"],
)  # fmt: skip


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_missed_demand_is_loud(ax):
    demand_bars(BARS, ax)
    assert [mpl.colors.to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [GOOD, BAD]
    assert [text.get_text() for text in ax.texts] == ["1.00, met (>= 0.98)", "0.50, MISSED (>= 0.98)"]
    words = bars_verdict(BARS)
    assert words.startswith("## ⚠ 1 of 2 bars are MISSED")
    assert "forget QA accuracy: **0.50**, demanded >= 0.98" in words
    assert bars_verdict(BARS[:1]) == "All 1 bars are met."


def test_losses_of_phases_follow_each_other(ax):
    history = pd.DataFrame({"phase": ["a", "a", "b"], "step": [0, 1, 0], "loss": [3.0, 1.0, 5.0]})
    loss_curves(history, ax, smooth=2)
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0, 1], [2]]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[3, 2], [5]]


def test_gap_curves_are_medians_a_rule(ax):
    rows = [("right", 2, gap) for gap in (0.1, 0.2, 0.9)] + [("gauss", 2, 0.5)]
    gap_curves(pd.DataFrame(rows, columns=["rule", "n_steps", "gap"]), ax)
    assert {line.get_label(): line.get_ydata().tolist() for line in ax.lines} == {
        "right": [0.2],
        "gauss": [0.5],
    }


def test_concentration_and_change_are_drawn_as_given(ax):
    concentration_curves(pd.DataFrame({"pair": "text", "top": [0.5, 1.0], "held": [0.8, 1.0]}), ax)
    assert ax.lines[0].get_ydata().tolist() == [0.8, 1.0]
    curve = pd.DataFrame({"pair": "text", "top": [0.1, 0.5, 1.0], "held": [0.5, 0.8, 1.0]})
    alike = concentration_curves(curve, ax.figure.add_subplot()).lines[-1]
    assert alike.get_xydata().tolist() == [[0.1, 0.1], [0.5, 0.5], [1, 1]], "no straight line on a log axis"
    rows = [
        ("path", "forget", -0.4),
        ("path", "retain", -0.1),
        ("random", "forget", 0.0),
        ("random", "retain", 0.1),
    ]
    bars = change_bars(pd.DataFrame(rows, columns=["silenced", "set", "change"]), ax.figure.add_subplot())
    assert [bar.get_width() for bar in bars.patches] == [-0.4, 0.0, -0.1, 0.1]


def test_panels_of_change_that_share_an_axis_have_the_limits_of_both():
    fig, axes = plt.subplots(1, 2, sharex=True)
    for ax, change in zip(axes, (-0.5, -0.001), strict=True):
        rows = pd.DataFrame({"silenced": "path", "set": ["forget", "retain"], "change": [change, 0.0]})
        change_bars(rows, ax)
    low, high = axes[1].get_xlim()
    assert axes[0].get_xlim() == (low, high)
    assert low < -0.5
    assert high >= 0.02
    plt.close(fig)


def test_a_gallery_shows_views_trained_on_and_not(ax):
    people = forget_ids(ROOT, 5)[:2]
    table = gallery(ROOT, people, n_training=3, n_unseen=1)
    assert table["view"].tolist() == ["training 1", "training 2", "training 3", "unseen 1"] * 2
    assert table.person_id.tolist() == [people[0]] * 4 + [people[1]] * 4
    assert table.image.nunique() == 8
    sheet = portrait_grid(table, ax, gap=4).images[0].get_array()
    size = (sheet.shape[0] + 4) // 2 - 4
    assert sheet.shape == (2 * size + 4, 4 * (size + 4) - 4, 3)
    assert (np.asarray(sheet)[size : size + 4] == 255).all(), "white between the rows"


def test_a_gallery_of_a_benchmark_without_unseen_views(tmp_path):
    table = gallery(clear(tmp_path), authors()[:2], n_training=2)
    assert table["view"].tolist() == ["training 1", "training 2"] * 2
    assert table["name"].tolist() == [authors()[0]] * 2 + [authors()[1]] * 2


def test_a_question_a_task():
    person = load_people(ROOT, "forget_5")[0]
    table = question_table(person)
    assert list(table.index) == ["VQA", "QA", "VGEN", "GEN", "VCLOZE", "CLOZE"]
    assert (table.picture == "yes").tolist() == [True, False] * 3
    assert table.prompt["GEN"] == next(q.prompt for q in person.questions if q.task == "GEN")


def test_path_marks_are_the_neurons(ax):
    paths = {label: NeuronPath("text", ((1, 5), (2,)), 9, "model") for label in ("one", "two")}
    table = pd.concat([path_table(path, label) for label, path in paths.items()])
    assert table.to_numpy().tolist()[:3] == [["one", 0, 1], ["one", 0, 5], ["one", 1, 2]]
    marks = path_marks(table, ax).collections
    assert [mark.get_positions() for mark in marks] == [[1, 5], [2], [1, 5], [2]]
    assert [text.get_text() for text in ax.legend().get_texts()] == ["one", "two"]
