"""Curves and sentences of the trial: shares of vanilla, and words that follow from the numbers."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mipnb.evidence.curves import curve_panel, curve_table, goal_sentences, verdict_rows


def marks():
    rows = [("nothing", "nothing", 0, group, 0.8) for group in ("forget", "retain")]
    for k, forget in ((1, 0.8), (4, 0.4)):
        rows += [("remove", "path", k, "forget", forget), ("remove", "path", k, "retain", 0.8)]
    table = pd.DataFrame(rows, columns=["measure", "choice", "k", "set", "recall"])
    return table.assign(unit="", draw=0, person_id="p", n=1)


def test_curves_are_shares_of_the_untouched_model():
    table = curve_table(marks(), "remove", ["path", "random"]).set_index(["set", "k"])
    assert table.value.to_dict() == {("forget", 1): 1, ("forget", 4): 0.5, ("retain", 1): 1, ("retain", 4): 1}
    _, ax = plt.subplots()
    curve_panel(table.reset_index(), ax)
    assert sorted(tuple(line.get_ydata()) for line in ax.lines) == [(1, 0.5), (1, 1)]
    plt.close(ax.figure)
    with pytest.raises(ValueError, match="nothing to draw"):
        curve_panel(curve_table(marks(), "keep", ["path"]), ax)


def test_a_choice_of_one_size_is_a_point_with_its_interval():
    table = curve_table(marks(), "remove", ["path"])
    one = table[table.k == 4].assign(low=0.2, high=0.9)
    _, ax = plt.subplots()
    curve_panel(one, ax)
    bars = [lines.get_segments()[0][:, 1].tolist() for lines in ax.collections]
    assert bars == [pytest.approx([0.2, 0.9])] * 2
    assert [line.get_fillstyle() for line in ax.lines] == ["full", "none"]  # forget, retain
    assert [tuple(line.get_ydata()) for line in ax.lines] == [(0.5,), (1,)]
    plt.close(ax.figure)


def test_labels_do_not_run_into_each_other():
    table = curve_table(marks(), "remove", ["path"])
    more = pd.concat([table.assign(k=k) for k in (12, 256, 384, 448, 512)])
    _, ax = plt.subplots()
    curve_panel(more, ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["12", "256", "384", "", "512"]
    assert list(ax.get_xticks()) == [12, 256, 384, 448, 512]
    plt.close(ax.figure)


def ratios(random, activation, manu):
    rows = [row for c, m in (("random", random), ("activation", activation), ("manu", manu))
            for row in ((c, "ratio", 4.0, 4.0 / m, m, 0.8 * m, 1.2 * m, "better"),
                        (c, "necessity", 0.6, 0.5, 0.1, 0, 0.2, "not better"),
                        (c, "spared", 0.45, 0.1, 0.35, 0, 0.2, "not better"))]  # fmt: skip
    columns = ["control", "measure", "value", "control_value", "margin", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def test_goals_are_held_against_random_and_the_better_point_wise_score():
    said = goal_sentences(ratios(4.0, 2.0, 1.6), "text").splitlines()
    assert (
        "4.00 (0.60 of forget lost, 0.15 of retain), random neurons 1.00 (0.50 of forget lost, 0.40 of retain)"
        in said[0]
    )
    assert "× 4.00" in said[0]
    assert said[0].endswith("is met.")
    assert "(manu)" in said[1]  # the control with the larger ratio
    assert said[1].endswith("is met on average, not surely.")
    assert "**not met**" in goal_sentences(ratios(2.0, 2.0, 2.0), "text")


def test_a_cell_says_value_control_margin_and_verdict():
    cell = verdict_rows(ratios(4.0, 2.0, 1.6)).loc["ratio", "random"]
    assert cell == "4.00 / 1.00; ×4.00 [3.20, 4.80]: better"
