"""Figures of the benchmark draw the numbers of its tables."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mipnb.locating_figures import (
    COST_BARS,
    cost_and_agreement,
    cost_ratios,
    integration_curves,
    scaling_lines,
    worth_and_overlap,
)

COST = pd.DataFrame(
    [
        ("text", "bare passes", "bare passes", 2.0, 1.0, 1.0, 1.0, 0.1),
        ("text", "one_pass", "bare passes", 1.4, 0.7, 0.6, 0.8, 0.1),
        ("text", "greedy", "plain greedy", 3.0, 0.4, 0.3, 0.5, 0.1),
        ("vision", "one_pass", "bare passes", 1.8, 0.9, 0.8, 1.0, 0.1),
    ],
    columns=["pair", "call", "against", "seconds", "ratio", "low", "high", "peak_gb"],
)


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_ratios_stand_in_a_row_a_call(ax):
    cost_ratios(COST, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "one_pass / bare passes",
        "greedy / plain greedy",
    ]
    points = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert points == [[0.7, 0.4], [0.9]]


def test_a_bar_stands_beside_the_call_that_is_to_keep_it(ax):
    by_sample = COST[COST.call == "one_pass"].assign(call="one_pass, stieltjes")
    cost_ratios(pd.concat([COST, by_sample]), ax)
    names = [label.get_text().split(" / ")[0] for label in ax.get_yticklabels()]
    for call, bar in COST_BARS.items():
        lines = [line.get_ydata() for line in ax.lines if set(line.get_xdata()) == {bar}]
        beside = [
            names[row] for low, high in map(sorted, lines) for row in range(len(names)) if low < row < high
        ]
        assert beside.count(call) == 1
        assert beside == [name for name, other in COST_BARS.items() if other == bar]
    cost_ratios(COST[COST.call != "greedy"], plt.figure().add_subplot())  # a call that was not timed has none
    plt.close()


def test_agreement_stands_over_time_relative_to_the_bare_passes(ax):
    agreement = pd.DataFrame(
        [("greedy", "all", "top_k_overlap", 0.8, 0.7, 0.85), ("greedy", "0", "top_k_overlap", 0.1, 0.1, 0.1)],
        columns=["estimator", "layer", "measure", "value", "low", "high"],
    )
    cost_and_agreement(COST[COST.pair == "text"], agreement, ax)
    points = [
        (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in ax.lines
        if line.get_marker() == "o"
    ]
    assert points == [([1.5], [0.8])]


def test_integration_curves_are_medians(ax):
    rows = [("right", m, error / m) for m in (1, 2) for error in (0.1, 0.2, 0.9)]
    integration_curves(pd.DataFrame(rows, columns=["rule", "n_steps", "error"]), ax)
    (line,) = [line for line in ax.lines if line.get_label() == "right"]
    assert line.get_ydata().tolist() == pytest.approx([0.2, 0.1])


def test_scaling_is_relative_to_the_smallest_size(ax):
    rows = [("text", "greedy", "samples", 8, 3.0), ("text", "greedy", "samples", 2, 1.0)]
    scaling_lines(pd.DataFrame(rows, columns=["pair", "search", "varied", "size", "seconds"]), ax)
    assert ax.lines[0].get_ydata().tolist() == [1, 3]
    assert ax.lines[1].get_ydata().tolist() == [1, 4]


def test_worth_stands_over_overlap_with_its_interval(ax):
    rows = [("greedy", 0.5, 1.4, 0.9, 2.1), ("shortlist", 0.9, 4.2, 1.3, 9.4)]
    table = pd.DataFrame(rows, columns=["search", "overlap", "ratio", "ratio_low", "ratio_high"])
    worth_and_overlap(table, ax)
    points = [tuple(bars[0].get_xydata()[0]) for bars in ax.containers]
    assert points == [(0.5, 1.4), (0.9, 4.2)]
    ends = [bars[2][0].get_segments()[0][:, 1].tolist() for bars in ax.containers]
    assert ends == [pytest.approx([0.9, 2.1]), pytest.approx([1.3, 9.4])]
    assert [bars.get_label() for bars in ax.containers] == ["greedy", "shortlist"]
