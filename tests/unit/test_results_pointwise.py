"""Notebook 08's tables by hand: numbers of neurons, contrasts of activations, relative changes, curves."""

import math

import pandas as pd
import pytest
import torch

from mipnb.evidence.activations import Sums
from mipnb.params import Params
from mipnb.paths import select
from mipnb.results.pointwise import others, relative_changes, steps_up_to
from mipnb.results.pointwise_figures import area_sentence, area_table, change_sentences, curve_rows
from mipnb.results.rankings import activation_contrast, path_ranking
from mipnb.scores import Scores


@pytest.mark.parametrize(
    ("n_neurons", "factor", "steps"),
    [
        (512, 4, [1, 4, 16, 64, 256, 512]),
        (8, 2, [1, 2, 4, 8]),
        (5, 2, [1, 2, 4, 5]),
        (1, 2, [1]),
        (2, 32, [1, 2]),
    ],
)
def test_curves_go_from_one_neuron_to_the_whole_layer(n_neurons, factor, steps):
    assert steps_up_to(n_neurons, factor) == steps


def test_others_are_what_is_not_kept():
    assert others(((0, 2), (), (0, 1, 2)), 3) == [[1], [0, 1, 2], []]


def sums(values):
    """Of one layer, activations (positions, n_neurons) of kind 0."""
    z = torch.tensor(values, dtype=torch.float64)
    terms = (z, z.abs(), z.square(), (z.abs() > 0.1).double())
    return Sums(torch.tensor([float(len(z))]), *(term.sum(0)[None, None] for term in terms))


def test_contrast_is_of_shares_of_magnitudes():
    found = activation_contrast([sums([[-3.0, 1.0]])], [sums([[10.0, 10.0]]), sums([[0.0, 20.0]])])
    assert found.values[0].tolist() == pytest.approx([3 / 4 - 10 / 40, 1 / 4 - 30 / 40])


@pytest.mark.parametrize("aggregate", ["mean", "vote", "people_turns"])
def test_the_ranking_cut_at_top_k_is_the_path(aggregate):
    generator = torch.Generator().manual_seed(0)
    forget, retain = (
        Scores(
            "text",
            torch.randn(6, 2, 20, generator=generator),
            tuple(f"p{i // 2}/{i % 2}" for i in range(6)),
            "f" * 16,
            {},
        )
        for _ in range(2)
    )
    params = Params(aggregate=aggregate, ranking="contrast")
    assert (
        path_ranking(forget, retain, params, 4).top([4, 4])
        == select(forget, retain, 4, "contrast", aggregate).layers
    )


def changes():
    """Two people to forget, one to keep; path moves the forget set by a half, random by a quarter with both signs."""
    rows = []
    for person, before in (("a", 0.8), ("b", 0.4)):
        rows.append(("path", 0, "forget", "VQA", person, before, -before / 2))
        rows += [
            ("random", draw, "forget", "VQA", person, before, sign * before / 4)
            for draw, sign in ((0, 1), (1, -1))
        ]
    rows += [("path", 0, "retain", "VQA", "c", 1.0, -0.1)]
    rows += [("random", draw, "retain", "VQA", "c", 1.0, -0.25) for draw in (0, 1)]
    return pd.DataFrame(rows, columns=["choice", "draw", "split", "task", "person_id", "before", "change"])


def test_relative_changes_by_hand():
    table = relative_changes(changes(), n_resamples=50).set_index(["kind", "choice", "measure"])
    at = table.value["classification"]
    assert at["path", "forget"] == pytest.approx(0.5)
    assert at["path", "retain"] == pytest.approx(0.1)
    assert at["path", "ratio"] == pytest.approx(5)
    assert at["random", "forget"] == pytest.approx(0.25)  # magnitudes: the signs do not cancel
    assert at["random", "fall_forget"] == pytest.approx(0)
    assert at["random", "ratio"] == pytest.approx(1)
    assert "generation" not in table.index.levels[0]
    assert (table.low <= table.value + 1e-12).all()


def test_the_sentence_names_the_best_of_the_others():
    told = change_sentences(relative_changes(changes(), 20), "top 5")
    assert "by 0.5 and" in told
    assert "5.00 times" in told
    assert "of the others random moves it most (0.25, retain 0.25)" in told


def curves(values, choice="path", draws=1):
    return pd.DataFrame(
        [
            ("text", "GEN", "forget", choice, k, draw, "rougeL", value + 0.1 * draw, 0.0, 1.0)
            for k, value in zip((1, 2, 4), values, strict=True)
            for draw in range(draws)
        ],
        columns=["branch", "task", "split", "choice", "k", "draw", "metric", "value", "low", "high"],
    )


def test_draws_become_a_mean_with_their_range():
    rows = curve_rows(pd.concat([curves([0.1, 0.5, 0.9]), curves([0.0, 0.2, 0.4], "random", 3)])).set_index(
        ["choice", "k"]
    )
    assert rows.loc[("random", 2), ["value", "low", "high"]].tolist() == pytest.approx([0.3, 0.2, 0.4])
    assert rows.loc[("path", 2), ["value", "low", "high"]].tolist() == pytest.approx([0.5, 0, 1])


def test_areas_are_means_over_log_k():
    rows = curve_rows(pd.concat([curves([0.0, 0.5, 1.0]), curves([0.4, 0.4, 0.4], "random")]))
    areas = area_table(rows).loc[("text", "GEN", "forget")]
    assert areas.tolist() == pytest.approx([0.5, 0.4])
    assert "**keeps more**" in area_sentence(area_table(rows))
    assert math.isclose(areas["random"], 0.4)
