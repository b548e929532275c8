"""Gaps and errors by rule and steps, and what is said of them."""

import math

import pandas as pd
from toys import Chain, chain_batch

from mipnb.integration_errors import REFERENCE, error_table, gap_bar_sentence, gap_table, integration_errors

FINE = (REFERENCE, "greedy", "text", 384, 0, 1e-5, 0.0)
COLUMNS = ["rule", "search", "pair", "n_steps", "layer", "gap", "error"]


def table(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame([FINE, *rows], columns=COLUMNS)


def test_errors_and_gaps_shrink_with_steps_and_errors_are_the_first_layers():
    model = Chain()
    choices = {"ffns": model.ffns, "top_k": 1, "fine": ("midpoint", 64)}
    for search, layers in (("one_pass", {-1}), ("greedy", {0, 1, 2})):
        found = integration_errors(model, chain_batch(), "text", search, {"gauss": (1, 8)}, **choices)
        assert set(found[found.rule == "gauss"].layer) == layers
        assert found[found.layer > 0].error.isna().all(), "paths of their own below"
        middle = found[found.layer <= 0].groupby("n_steps")[["gap", "error"]].median()
        assert (middle.loc[8] < 0.2 * middle.loc[1]).all()
        fine = found[found.rule == REFERENCE]
        assert set(fine.layer) == {min(layers)}
        assert set(fine.n_steps) == {64}
        assert (fine.gap < 0.001).all()


def test_the_layer_with_the_largest_median_gap_is_the_one_told():
    gaps = {0: (0.4, 0.6, 0.8), 1: (0.001, 0.002, 0.9), 2: (0.0, 0.0, 0.005)}
    rows = [
        ("gauss", "greedy", "text", 4, layer, gap, 0.0) for layer, all_of in gaps.items() for gap in all_of
    ]
    found = gap_table(pd.DataFrame(rows, columns=COLUMNS)).iloc[0]
    assert found["largest median"] == 0.6, "pooled it would be 0.002"
    assert math.isclose(found["within 1%"], 5 / 9)


def test_the_worst_question_stands_beside_the_median_one():
    rows = [("gauss", "greedy", "text", 4, 0, 0.1, error) for error in (0.1, 0.2, 1.5)]
    rows += [
        ("gauss", "greedy", "text", 4, 1, 0.1, float("nan")),
        ("gauss", "greedy", "text", 8, 0, 0.1, 9.0),
    ]
    (found,) = error_table(table(rows), 4).itertuples()
    assert (found.Index, found.median, found.worst) == (("greedy", "text", "gauss"), 0.2, 1.5)


def test_the_bar_on_gaps_is_told_by_rule():
    rows = [(rule, search, pair, 4, 0, gap, 0.0) for rule, gap in (("right", 0.5), ("stieltjes", 0.002))
            for search in ("greedy", "one_pass") for pair in ("text", "vision")]  # fmt: skip
    rows += [("right", "greedy", "text", 64, 0, 0.0, 0.0)]
    told = gap_bar_sentence(table(rows), 4, 5.0)
    assert "in all of text, vision: met by `stieltjes` (0.002); **not met** by `right` (0.500)" in told
    assert "5.0 times as long" in told
    assert "against 384 steps of `midpoint`, whose own gap is at most 1e-05" in told
    gap = table(rows)
    gap.loc[(gap.rule == "stieltjes") & (gap.pair == "vision"), "gap"] = 0.02
    assert "met by none; **not met** by `right` (0.500), `stieltjes` (0.020)" in gap_bar_sentence(gap, 4, 5.0)


def test_the_fewest_steps_are_those_from_which_on_every_layer_keeps_the_bar():
    rows = [("gauss", "greedy", pair, m, layer, gap, 0.0)
            for pair, layer, gaps in (("text", 0, (0.005, 0.02, 0.002)), ("vision", 0, (0.004, 0.003, 0.001)),
                                      ("vision", 1, (0.0, 0.0, 0.0)))
            for m, gap in zip((4, 8, 16), gaps, strict=True)]  # fmt: skip
    rows += [("right", "greedy", pair, 32, 0, 0.002, 0.0) for pair in ("text", "vision")]
    rows += [("stieltjes", "greedy", "text", 1, 0, 0.0, 0.0)]
    jointly = [(rule, "one_pass", pair, m, -1, 0.3, 0.0) for rule, _, pair, m, *_ in rows if rule == "gauss"]
    told = gap_bar_sentence(table(rows + jointly), 4, 5.0)
    assert "in every layer `gauss`, m = 16; jointly none" in told, "m = 4 meets it, m = 8 does not"
    assert "(up to m: `gauss` 16, `right` 32)" in told
