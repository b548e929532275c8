"""Agreement of scores by hand, and the benchmark command on a tiny model's scores."""

import pandas as pd
import pytest
import torch
from toys import Chain, chain_batch, questions, tiny_vl

from mipnb import bench_locating
from mipnb.cli import main
from mipnb.commands import bench
from mipnb.estimators import (
    agreement_table,
    cheapest_that_agrees,
    closest_sentences,
    gap_bar_sentence,
    integration_errors,
    interval,
    rank_correlations,
    top_overlap,
)
from mipnb.locating import PAIRS
from mipnb.models import ffns
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


def test_an_interval_holds_the_mean_and_shrinks_with_more_values():
    few, many = [0.0, 1.0, 0.2, 0.8], [0.0, 1.0, 0.2, 0.8] * 50
    low, high = interval(few)
    assert low < 0.5 < high
    assert interval(many)[1] - interval(many)[0] < 0.3 * (high - low)
    assert interval([0.3, 0.3]) == pytest.approx((0.3, 0.3))


def test_the_table_has_each_layer_and_all_of_them():
    table = agreement_table({"other": scores(OTHER), "same": scores(REFERENCE)}, scores(REFERENCE), 2, "text")
    rows = table.set_index(["estimator", "layer", "measure"]).value
    assert rows["other", "0", "top_k_overlap"] == 0.5
    assert rows["other", "all", "top_k_overlap"] == 0.25
    assert rows["same", "all", "rank_correlation"] == pytest.approx(1)


def test_the_cheapest_that_agrees_enough_is_chosen_or_none():
    def row(name: str, value: float) -> dict:
        return {"estimator": name, "layer": "all", "measure": "top_k_overlap", "value": value}

    table = pd.DataFrame([row("dear", 0.95), row("cheap", 0.92), row("poor", 0.4)])
    cost = {"dear": 3.0, "cheap": 1.0, "poor": 0.1}
    assert cheapest_that_agrees(table, cost) == "cheap"
    assert cheapest_that_agrees(table, cost, least=0.99) is None
    elsewhere = pd.DataFrame([row("dear", 0.9), row("cheap", 0.89)])
    assert cheapest_that_agrees(pd.concat([table, elsewhere]), cost) == "dear", "poor in one branch is poor"


def test_the_closest_is_named_and_the_cheapest_within_its_interval():
    rows = [("dear", 0.9, 0.7), ("cheap", 0.75, 0.5), ("poor", 0.6, 0.5)]
    table = pd.DataFrame(rows, columns=["estimator", "value", "low"])
    table = table.assign(layer="all", measure="top_k_overlap", kind="igi", pair="text", n=6)
    cost = pd.DataFrame(
        {"call": ["bare passes", "dear", "cheap", "poor"], "seconds": [2.0, 3.0, 1.0, 0.1], "pair": "text"}
    )
    told = closest_sentences(cost, table)
    assert "closest is `dear` (0.90, at 1.50 of" in told
    assert (
        "the cheapest within its 95 % interval (of 6 questions) is `cheap` (0.75, at 0.50 of the bare" in told
    )
    assert "poor" not in told
    alone = closest_sentences(cost, table.assign(low=0.8))
    assert "cheapest" not in alone


def test_errors_and_gaps_shrink_with_steps():
    model = Chain()
    choices = {"ffns": model.ffns, "top_k": 1}
    for search, layers in (("one_pass", {-1}), ("greedy", {0, 1, 2})):
        table = integration_errors(
            model, chain_batch(), "text", search, {"gauss": (1, 8)}, converged=64, **choices
        )
        assert set(table.layer) == layers
        middle = table[table.layer <= 0].groupby("n_steps")[["gap", "error"]].median()
        assert (middle.loc[8] < 0.2 * middle.loc[1]).all()


# ---- the benchmark command


@pytest.mark.parametrize("pair", ["text", "text_pictured", "vision"])
def test_every_question_of_the_benchmark_has_an_answer(pair, monkeypatch):
    monkeypatch.setattr(bench_locating, "GAP_RULES", {"right": (2,), "stieltjes": (2,)})
    monkeypatch.setattr(bench_locating, "TOP_K", 2)
    grids = [(0, 0)] * 2 if pair == "text" else [(4, 4), (2, 6)]
    model, batches = tiny_vl(), {pair: questions(grids, [7, 9])}
    cost = bench_locating.cost(model, batches, repeats=1)
    assert set(cost.against) == {"bare passes", "plain greedy"}
    assert (cost[["seconds", "ratio", "peak_gb"]] > 0).all(axis=None)
    gaps = bench_locating.gap(model, batches, 2)
    assert set(gaps.search) == {"greedy", "one_pass"}
    monkeypatch.setattr(bench_locating, "ffns", lambda model, branch: ffns(model, branch)[-1:])
    compared = bench_locating.agreement(model, batches, 1)
    assert set(compared.kind) == ({"igi", "ifi"} if pair == "vision" else {"igi"})
    assert compared.value.between(-1, 1).all()


def test_longer_questions_are_longer_and_keep_their_answer():
    batch = questions([(4, 4), (2, 6)], [7, 9])
    longer = bench_locating._lengthened(batch, 3)
    width = batch["labels"].shape[1]
    assert longer["labels"].shape == (2, 3 * width)
    assert torch.equal(longer["labels"][:, -width:], batch["labels"])
    assert (longer["labels"][:, :-width] == -100).all()
    assert (longer["mm_token_type_ids"].sum(1) == batch["mm_token_type_ids"].sum(1)).all()


def test_wrong_input_is_told_in_a_line(capsys, tmp_path):
    assert main(["bench", "locating", "--benchmark", str(tmp_path / "none"), "--only", "cost"]) == 2
    assert "mipnb: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--samples", "0"], "bench_samples = 0"),
        (["--compared", "0"], "bench_compared = 0"),
        (["--repeats", "0"], "bench_repeats = 0"),
        (["--samples", "4", "--compared", "5"], "--compared is 5, --samples 4"),
    ],
)
def test_too_few_questions_or_rounds_are_refused_before_any_work(given, told, capsys, monkeypatch):
    monkeypatch.setattr(bench_locating, "load_model", lambda *_: pytest.fail("loaded"))
    assert main(["bench", "locating", *given]) == 2
    assert told in capsys.readouterr().err


def test_tokens_before_a_picture_are_counted():
    batch = questions([(4, 4), (2, 6)], [7, 9])
    kinds = batch["mm_token_type_ids"][0].tolist()
    assert (
        bench_locating.before_picture(batch, tiny_vl().config.image_token_id) == kinds.index(max(kinds)) > 0
    )


def test_the_command_offers_the_questions_and_pairs_that_there_are():
    assert (bench_locating.QUESTIONS, tuple(PAIRS)) == (bench.QUESTIONS, bench.PAIRS)


def test_the_bar_on_gaps_is_told_by_rule():
    rows = [(rule, search, pair, 4, gap) for rule, gap in (("right", 0.5), ("stieltjes", 0.002))
            for search in ("greedy", "one_pass") for pair in ("text", "vision")]  # fmt: skip
    rows += [("right", "greedy", "text", 64, 0.0)]
    gap = pd.DataFrame(rows, columns=["rule", "search", "pair", "n_steps", "gap"])
    told = gap_bar_sentence(gap, 4, 5.0)
    assert "met by `stieltjes` (0.002); **not met** by `right` (0.500)" in told
    assert "5.0 times as long" in told
    gap.loc[(gap.rule == "stieltjes") & (gap.pair == "vision"), "gap"] = 0.02
    assert "met by none; **not met** by `right` (0.500), `stieltjes` (0.020)" in gap_bar_sentence(gap, 4, 5.0)


def test_the_fewest_steps_are_those_from_which_on_the_bar_is_kept():
    rows = [("gauss", pair, m, gap) for pair, gaps in (("text", (0.005, 0.02, 0.002)), ("vision", (0.004, 0.003, 0.001)))
            for m, gap in zip((2, 4, 8), gaps, strict=True)]  # fmt: skip
    rows += [("right", pair, 16, 0.002) for pair in ("text", "vision")] + [("stieltjes", "text", 1, 0.0)]
    layers = pd.DataFrame(rows, columns=["rule", "pair", "n_steps", "gap"]).assign(search="greedy")
    jointly = layers[layers.rule != "right"].assign(search="one_pass", gap=0.3)
    told = gap_bar_sentence(pd.concat([layers, jointly]), 4, 5.0)
    assert "a layer at a time `gauss`, m = 8; jointly none" in told, "m = 2 meets it, m = 4 does not"
    assert "up to m = 16" in told
