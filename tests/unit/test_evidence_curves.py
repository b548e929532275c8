"""Curves of the trial: shares of vanilla."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mipnb.evidence.curves import curve_legend, curve_panel, curve_table


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


def test_vision_networks_have_a_linear_axis_with_every_label():
    table = pd.concat([curve_table(marks(), "remove", ["path"]).assign(k=k) for k in (12, 384, 448)])
    _, ax = plt.subplots()
    curve_panel(table, ax, linear=True)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["12", "384", "448"]
    assert ax.get_xscale() == "linear"
    handles, labels = curve_legend(ax)
    assert labels == ["path", "forget set", "retain set"]
    drawn = {line.get_linestyle() for line in ax.lines}
    assert {line.get_linestyle() for line in handles[1:]} == drawn == {"-", "--"}
    plt.close(ax.figure)
