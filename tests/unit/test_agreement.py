"""Agreement of paths by hand, and against random draws."""

from statistics import mean

import pytest

from mipnb.agreement import agreement, among, by_chance, by_name, mean_overlap, overlap_rows
from mipnb.paths import NeuronPath, random_path


def _path(*layers, n_neurons=100):
    return NeuronPath("text", tuple(tuple(layer) for layer in layers), n_neurons, "model")


ONE, TWO = _path((1, 2, 3), (4,)), _path((2, 3, 5), (4,))


def test_overlap_is_the_mean_over_layers():
    assert mean_overlap(ONE, TWO) == pytest.approx((2 / 4 + 1) / 2)
    table = overlap_rows({"one": ONE, "two": TWO}).set_index(["row", "column"]).overlap
    assert table["one", "one"] == 1
    assert table["one", "two"] == table["two", "one"] == pytest.approx(0.75)


def test_chance_is_the_formula_and_what_random_draws_do():
    path = _path(range(24), range(24))
    assert by_chance(path, path) == pytest.approx(24 / (200 - 24))
    drawn = [random_path(path, seed) for seed in range(40)]
    assert mean(mean_overlap(path, other) for other in drawn) == pytest.approx(
        by_chance(path, path), abs=0.02
    )
    assert by_chance(path, _path((1,), ())) == pytest.approx((0.24 / 24.76 + 0) / 2)


def test_among_averages_pairs_and_needs_two():
    assert among({"a": ONE, "b": TWO, "c": ONE})[0] == pytest.approx((0.75 + 1 + 0.75) / 3)
    with pytest.raises(ValueError, match="at least two"):
        among({"a": ONE})


def test_a_table_of_pairs():
    table = agreement({"same": (ONE, ONE), "other": (ONE, TWO)}).set_index("compared")
    assert table.overlap.tolist() == [1, 0.75]
    assert table.by_chance["other"] == pytest.approx(by_chance(ONE, TWO))


def test_paths_are_called_by_their_people():
    paths = {"1": ONE, "2": TWO, "3": ONE, "4": TWO}
    called = by_name(paths, {"1": "Ada", "2": "Bo", "3": "Ada"})
    assert called == {"Ada (1)": ONE, "Bo": TWO, "Ada (3)": ONE, "4": TWO}
