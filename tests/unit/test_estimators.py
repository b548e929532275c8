"""Agreement of scores by hand."""

import pandas as pd
import pytest
import torch

from mipnb.estimators import (
    agreement_table,
    cheapest_that_agrees,
    closest_sentences,
    default_sentence,
    finer_sentence,
    interval,
    rank_correlations,
    top_overlap,
)
from mipnb.scores import Scores

REFERENCE = torch.tensor([[[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]]])
OTHER = torch.tensor([[[50.0, 2.0, 30.0, 4.0], [4.0, 3.0, 2.0, 1.0]]])


def scores(values: torch.Tensor) -> Scores:
    return Scores("text", values, tuple(map(str, range(len(values)))), "toy")


def test_overlap_counts_the_references_best():
    assert top_overlap(OTHER, REFERENCE, 2).tolist() == [[0.5, 0.0]]
    assert top_overlap(REFERENCE * 7, REFERENCE, 3).tolist() == [[1.0, 1.0]]


def test_rank_correlation_is_spearmans():
    assert rank_correlations(OTHER, REFERENCE).tolist() == [pytest.approx([0.4, -1.0])]
    assert rank_correlations(REFERENCE**3, REFERENCE).tolist() == [pytest.approx([1.0, 1.0])]
    assert rank_correlations(torch.zeros_like(OTHER), REFERENCE).tolist() == [[0, 0]]


def test_an_interval_is_students_and_ends_where_the_measure_does():
    assert interval([1.0, 2.0, 3.0, 4.0], (-9, 9)) == pytest.approx((0.445739, 4.554261), abs=1e-5)
    assert interval([0.0, 1.0], (0, 1)) == (0, 1)
    assert interval([0.3, 0.3], (0, 1)) == pytest.approx((0.3, 0.3))
    assert interval([0.3], (0, 1)) == pytest.approx((float("nan"),) * 2, nan_ok=True), (
        "one says nothing of spread"
    )


def test_the_table_has_each_layer_and_all_of_them():
    table = agreement_table({"other": scores(OTHER), "same": scores(REFERENCE)}, scores(REFERENCE), 2, "text")
    rows = table.set_index(["estimator", "layer", "measure"]).value
    assert rows["other", "0", "top_k_overlap"] == 0.5
    assert rows["other", "all", "top_k_overlap"] == 0.25
    assert rows["same", "all", "rank_correlation"] == pytest.approx(1)


def overlap(estimator: str, value: float, rule: str = "right", pair: str = "text") -> dict:
    return {"estimator": estimator, "layer": "all", "measure": "top_k_overlap", "value": value, "rule": rule, "pair": pair,
            "kind": "igi"}  # fmt: skip


COST = {"shortlist": 3.0, "tangent": 1.0, "greedy": 0.5}


def test_the_cheapest_that_agrees_enough_is_chosen_or_none():
    table = pd.DataFrame([overlap("shortlist", 0.95), overlap("tangent", 0.92), overlap("greedy", 0.4)])
    assert cheapest_that_agrees(table, COST, "right") == "tangent"
    assert cheapest_that_agrees(table, COST, "right", least=0.99) is None
    vision = pd.DataFrame([overlap("shortlist", 0.9, pair="vision"), overlap("tangent", 0.89, pair="vision")])
    table = pd.concat([table, vision])
    assert cheapest_that_agrees(table, COST, "right") == "shortlist", "poor in one branch is poor"
    other = table.assign(rule="gauss", value=0.5)
    assert cheapest_that_agrees(pd.concat([table, other]), COST, "right") == "shortlist", (
        "rows of like rules alone"
    )
    assert cheapest_that_agrees(pd.concat([table, other]), COST, "gauss") is None


def test_what_the_default_lacks_is_told_and_that_none_has_enough():
    rows = [
        overlap("shortlist", 0.95),
        overlap("tangent", 0.6),
        overlap("greedy", 0.4),
        overlap("exact, other rule", 0.99),
    ]
    told = default_sentence(pd.DataFrame(rows), COST, "right", "greedy")
    assert "in all of text is `shortlist`, at 6.0 times the time of `greedy`" in told
    assert "The default, `greedy`, has at least 0.40; the nearest, `shortlist`, 0.95." in told
    told = default_sentence(pd.DataFrame(rows), COST, "right", "shortlist")
    assert "at 6.0 times the time of `greedy`. The default, `shortlist`, has at least 0.95." in told
    rows[0]["value"] = 0.8
    told = default_sentence(pd.DataFrame(rows), COST, "right", "greedy")
    assert "**none reaches 0.9**" in told
    assert "the nearest, `shortlist`, 0.80." in told, "the reference by another rule is no estimator"


def test_finer_sums_of_the_set_are_told_by_case_and_the_reference_by_its_other_rule():
    names = ("greedy", "greedy, stieltjes", "one_pass", "one_pass, stieltjes", "exact, other rule")
    by_rule = {"right": (0.5, 0.6, 0.2, 0.1, 0.93), "gauss": (0.5, 0.4, 0.2, 0.1, 0.93)}
    rows = [
        overlap(name, value, rule)
        for rule, values in by_rule.items()
        for name, value in zip(names, values, strict=True)
    ]
    told = finer_sentence(pd.DataFrame(rows))
    assert "overlap of 0.93 (text, igi)" in told
    assert "Of 2 cases " in told
    assert (
        "`greedy, stieltjes` is nearer than `greedy` in 1, `one_pass, stieltjes` is nearer than `one_pass` in 0"
        in told
    )
    assert "a small gap does not bring scores nearer" in told
    nearer = pd.DataFrame(rows).replace(
        {"estimator": {"one_pass": "one_pass, stieltjes", "one_pass, stieltjes": "one_pass"}}
    )
    told = finer_sentence(nearer)
    assert "than `one_pass` in 2." in told, "then it does"


def test_the_closest_is_named_and_the_cheapest_within_its_interval():
    rows = [("shortlist", 0.9, 0.7), ("tangent", 0.75, 0.5), ("greedy", 0.6, 0.5)]
    table = pd.DataFrame(rows, columns=["estimator", "value", "low"])
    table = table.assign(layer="all", measure="top_k_overlap", kind="igi", pair="text", n=6)
    cost = pd.DataFrame(
        {
            "call": ["bare passes", "shortlist", "tangent", "greedy"],
            "seconds": [2.0, 3.0, 1.0, 0.1],
            "pair": "text",
        }
    )
    reference = table.iloc[:1].assign(estimator="exact, other rule", value=0.99)
    told = closest_sentences(cost, pd.concat([table, reference]))
    assert "closest is `shortlist` (0.90, at 1.50 of" in told
    assert (
        "the cheapest within its 95 % interval (of 6 questions) is `tangent` (0.75, at 0.50 of the bare"
        in told
    )
    assert "greedy" not in told
    alone = closest_sentences(cost, table.assign(low=0.8))
    assert "cheapest" not in alone
