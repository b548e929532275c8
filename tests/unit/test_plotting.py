"""Figures: what is drawn is what the table says, and a file is the same bytes every time."""

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mipnb.artefacts import read_json, sha256
from mipnb.figures import save_figure
from mipnb.people import people_figure, people_page, people_table
from mipnb.plotting import (
    COLUMN,
    METHODS,
    colours,
    overlap_matrix,
    score_map,
    score_table,
    set_theme,
    task_bars,
    trade_off,
    training_curves,
)

BARS = pd.DataFrame(
    [
        ("QA", "vanilla", "accuracy", 0.9, 0.8, 0.95),
        ("QA", "edited", "accuracy", 0.2, 0.1, 0.4),
        ("VGEN", "vanilla", "rougeL", 0.7, 0.6, 0.8),
        ("VGEN", "edited", "rougeL", 0.3, 0.2, 0.4),
        ("VGEN", "edited", "value_recall", 0.0, 0.0, 0.1),
    ],
    columns=["task", "method", "metric", "value", "low", "high"],
)


@pytest.fixture
def ax():
    set_theme()
    fig, ax = plt.subplots(figsize=(COLUMN, 2))
    yield ax
    plt.close(fig)


def _luminance(colour):
    return np.array(mpl.colors.to_rgb(colour)) @ [0.2126, 0.7152, 0.0722]


def test_methods_have_one_colour_each_and_the_main_ones_differ_in_grey():
    assert len(set(METHODS.values())) == len(METHODS)
    assert colours(["random", "edited"]) == {"random": METHODS["random"], "edited": METHODS["edited"]}
    assert colours(["IDK"])["IDK"] == colours(["vanilla", "IDK"])["IDK"], "whatever stands beside it"
    levels = sorted(_luminance(METHODS[name]) for name in ("vanilla", "edited", "retrained"))
    assert min(np.diff(levels)) > 0.1
    with pytest.raises(ValueError, match="share a colour"):
        colours([f"new{index}" for index in range(20)])


def test_bars_show_value_and_interval(ax):
    assert task_bars(BARS, ax) is ax
    heights = [round(bar.get_height(), 6) for bar in ax.patches]
    assert heights == [0.9, 0.7, 0.2, 0.3]
    ends = [np.round([line[:, 1] for line in bars.get_segments()], 6).tolist() for bars in ax.collections]
    assert ends == [[[0.8, 0.95], [0.6, 0.8]], [[0.1, 0.4], [0.2, 0.4]]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["QA", "VGEN"]
    recall = task_bars(BARS, ax.figure.add_subplot(), {"VGEN": "value_recall"})
    assert [bar.get_height() for bar in recall.patches] == [0.0]


def test_bars_refuse_what_cannot_be_one_bar(ax):
    with pytest.raises(ValueError, match=r"several rows for .*'QA'"):
        task_bars(pd.concat([BARS, BARS]), ax)
    with pytest.raises(ValueError, match="nothing to draw"):
        task_bars(BARS[:0], ax)


def test_a_score_map_keeps_layers_and_neurons_in_place(ax):
    values = np.array([[0.0, 3.0, 1.0], [5.0, 0.0, 2.0]])
    table = score_table(values).sample(frac=1, random_state=0)
    np.testing.assert_array_equal(score_map(table, ax).images[0].get_array(), values)
    ranked = score_map(table, ax.figure.add_subplot(), order="rank").images[0]
    np.testing.assert_array_equal(ranked.get_array(), [[3, 1, 0], [5, 2, 0]])
    signed = score_map(score_table(values - 1), ax.figure.add_subplot()).images[0]
    assert signed.norm(0.0) == pytest.approx(0.5), "white is zero"


def test_an_overlap_matrix_keeps_the_order_given(ax):
    rows = [("b", "b", 1.0), ("b", "a", 0.2), ("a", "b", 0.2), ("a", "a", 1.0)]
    overlap_matrix(pd.DataFrame(rows, columns=["row", "column", "overlap"]), ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "a"]
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.20", "0.20", "1.00"]


def test_training_curves_are_the_mean_over_seeds(ax):
    one = pd.DataFrame(
        {"step": [0, 1], "loss_forget": [2.0, 1.0], "loss_retain": [0.1, 0.2], "loss_ce": [3.0, 1.0]}
    )
    training_curves(pd.concat([one, one.assign(loss_forget=[4.0, 3.0])]), ax)
    assert ax.lines[0].get_ydata().tolist() == [3.0, 2.0]
    assert ax.lines[2].get_ydata().tolist() == [3.0, 1.0]
    assert ax.get_yscale() == "log"


def test_the_trade_off_puts_each_method_once(ax):
    table = pd.DataFrame(
        {"method": ["edited", "random"], "forgetting_rate": [0.9, 0.5], "retention": [1.0, 0.8]}
    )
    points = [tuple(np.round(dots.get_offsets()[0], 6)) for dots in trade_off(table, ax).collections]
    assert points == [(0.9, 1.0), (0.5, 0.8), (1.0, 1.0)]
    with pytest.raises(ValueError, match="several rows"):
        trade_off(pd.concat([table, table]), ax)


# Files

_DRAW = """
import sys, matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt, numpy as np
from mipnb.plotting import set_theme, score_map, score_table
from mipnb.figures import save_figure
set_theme()
fig, axes = plt.subplots(1, 2, figsize=(7, 2))
table = score_table(np.arange(12.0).reshape(3, 4) - 5)
score_map(table, axes[0]); score_map(table, axes[1], order="rank"); axes[1].plot([0, 1], clip_on=True)
source = dict(notebook="02_attribution", parameters={"seed": 1}, results=[], caption="A map.")
save_figure(fig, "map", table, sys.argv[1], source)
"""


def test_files_are_the_same_bytes_in_another_process(tmp_path):
    for run, salt in (("one", "1"), ("two", "2")):
        environment = {"PYTHONHASHSEED": salt, "PATH": "/usr/bin:/bin", "MPLCONFIGDIR": str(tmp_path / "mpl")}
        command = [sys.executable, "-c", _DRAW, str(tmp_path / run)]
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["manifest.json", "map.csv", "map.pdf", "map.png", "map.svg"]
    assert [sha256(tmp_path / "one" / n) for n in names] == [sha256(tmp_path / "two" / n) for n in names]
    pdf = (tmp_path / "one" / "map.pdf").read_bytes()
    assert b"/CIDFontType2" in pdf  # fonttype 42: text stays text
    assert b"/Type3" not in pdf


def _source(**changed):
    return {
        "notebook": "05_evaluation",
        "parameters": {"seed": 1},
        "results": [],
        "caption": "Bars.",
    } | changed


def test_data_and_source_are_kept_beside_the_figure(ax, tmp_path):
    results = tmp_path / "results.parquet"
    results.write_bytes(b"rows")
    task_bars(BARS, ax)
    for name in ("second", "first"):
        files = save_figure(ax.figure, name, BARS, tmp_path, _source(results=[results]))
    pd.testing.assert_frame_equal(pd.read_csv(files["csv"]), BARS)
    manifest = read_json(tmp_path / "manifest.json")
    assert list(manifest) == ["first", "second"]
    assert manifest["first"]["results"] == {"results.parquet": sha256(results)}
    assert manifest["first"]["notebook"] == "05_evaluation"
    assert manifest["first"]["files"] == ["first.csv", "first.pdf", "first.png", "first.svg"]
    assert str(tmp_path) not in (tmp_path / "manifest.json").read_text()


def test_a_notebook_shows_the_caption_and_nothing_else_does(ax, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("mipnb.figures.display", lambda text: shown.append(text.data))
    ax.plot([0, 1])
    save_figure(ax.figure, "fig", pd.DataFrame({"x": [1]}), tmp_path, _source(caption="On pocket."))
    assert not shown
    monkeypatch.setattr("mipnb.figures.get_ipython", lambda: "a kernel")
    save_figure(ax.figure, "fig", pd.DataFrame({"x": [1]}), tmp_path, _source(caption="On pocket."))
    assert shown == ["*On pocket.*"]


def test_a_figure_without_source_or_data_is_refused(ax, tmp_path):
    with pytest.raises(ValueError, match="expected"):
        save_figure(ax.figure, "bars", BARS, tmp_path, {"notebook": "05_evaluation"})
    with pytest.raises(ValueError, match="no data"):
        save_figure(ax.figure, "bars", BARS[:0], tmp_path, _source())
    assert list(tmp_path.iterdir()) == []


# People


def _portrait(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def people():
    rows = [
        ("forget", "p1", "VGEN", "Who <is> this?", "Ann, of Rome.", "Ann, of Rome."),
        ("forget", "p1", "VGEN", "Where?", "Rome.", "Rome."),
        ("retain", "p2", "VGEN", "Who is this?", "Bob.", "Bob."),
        ("retain", "p2", "GEN", "Who is Bob?", "A man.", "A man."),
    ]
    before = pd.DataFrame(rows, columns=["split", "person_id", "task", "prompt", "answer", "generated"])
    return before, before.assign(generated=["I & you.", "no", "Bob.", "x"])


def test_the_page_of_people_has_portraits_and_both_models_words(people):
    table = people_table(*people, {"p2": "Bob", "p1": "Ann"})
    assert table[["person_id", "before", "after"]].to_numpy().tolist() == [
        ["p2", "Bob.", "Bob."],
        ["p1", "Ann, of Rome.", "I & you."],
    ]
    page = people_page(table, {"p1": _portrait("red"), "p2": _portrait("blue")})
    assert page.count("data:image/png;base64,") == 2
    assert "Who &lt;is&gt; this?" in page
    assert "I &amp; you." in page
    assert page == people_page(table, {"p1": _portrait("red"), "p2": _portrait("blue")})


def test_an_empty_answer_is_said_in_words(people):
    before, after = people
    table = people_table(before, after.assign(generated=["", "no", " ", "x"]), {"p2": "Bob", "p1": "Ann"})
    assert table.after.tolist() == ["(nothing)", "(nothing)"]
    assert table.before.tolist() == ["Bob.", "Ann, of Rome."]


def test_people_of_two_models_must_be_asked_the_same(people):
    before, after = people
    with pytest.raises(ValueError, match="same questions"):
        people_table(before, after[::-1], {"p1": "Ann"})
    with pytest.raises(ValueError, match=r"no GEN questions of people \['p1'\]"):
        people_table(before, after, {"p1": "Ann"}, task="GEN")


def test_the_figure_of_people_has_one_axes_a_row(people):
    table = people_table(*people, {"p1": "Ann", "p2": "Bob"})
    portraits = {"p1": _portrait("red"), "p2": _portrait("blue")}
    fig, axes = plt.subplots(1, 2)
    people_figure(table, portraits, axes)
    assert axes[0].get_xlabel() == "before: Ann, of Rome.\nafter: I & you."
    assert axes[0].images[0].get_array()[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(ValueError, match="2 rows need as many axes, got 1"):
        people_figure(table, portraits, axes[:1])
    plt.close(fig)
