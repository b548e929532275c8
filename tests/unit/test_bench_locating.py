"""The benchmark command on a tiny model's scores."""

import inspect
from functools import partial

import pandas as pd
import pytest
import torch
from toys import questions, tiny_vl

from mipnb import bench_locating
from mipnb.attribution import SEARCH, attribute
from mipnb.cli import main
from mipnb.commands import bench
from mipnb.estimators import ESTIMATORS
from mipnb.integration_errors import integration_errors
from mipnb.locating import PAIRS
from mipnb.models import ffns
from mipnb.params import Params
from mipnb.scores import Scores


@pytest.mark.parametrize("pair", ["text", "text_pictured", "vision"])
def test_every_question_of_the_benchmark_has_an_answer(pair, monkeypatch):
    monkeypatch.setattr(bench_locating, "GAP_RULES", {"right": (2,), "stieltjes": (2,)})
    monkeypatch.setattr(bench_locating, "TOP_K", 2)
    grids = [(0, 0)] * 3 if pair == "text" else [(4, 4), (2, 6), (4, 4)]
    model, batches = tiny_vl(), {pair: questions(grids, [7, 9, 8])}
    cost = bench_locating.cost(model, batches, repeats=1)
    assert set(cost.against) == {"bare passes", "plain greedy"}
    assert cost.set_index("call").samples[["exact", "shortlist", "greedy"]].tolist() == [2, 3, 3]
    assert ("greedy, with gap" in set(cost.call)) == (pair != "vision"), "squared gradients have none"
    assert (cost[["seconds", "ratio", "peak_gb"]] > 0).all(axis=None)
    few = partial(integration_errors, fine=("midpoint", 8))
    monkeypatch.setattr(bench_locating, "integration_errors", few)
    gaps = bench_locating.gap(model, batches, 2)
    assert set(gaps.search) == {"greedy", "one_pass"}
    monkeypatch.setattr(bench_locating, "ffns", lambda model, branch: ffns(model, branch)[-1:])
    compared = bench_locating.agreement(model, batches, 2)
    assert set(compared.kind) == ({"igi", "ifi"} if pair == "vision" else {"igi"})
    assert set(compared.rule) == {"right", "gauss"}
    assert compared.value.between(-1, 1).all()


def test_wrong_input_is_told_in_a_line(capsys, tmp_path):
    assert main(["bench", "locating", "--benchmark", str(tmp_path / "none"), "--only", "cost"]) == 2
    assert "mipnb: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--samples", "0"], "bench_samples = 0"),
        (["--compared", "0"], "bench_compared = 0"),
        (["--repeats", "0"], "bench_repeats = 0"),
        (["--samples", "4", "--compared", "5"], "5 questions are to be compared, of 4 of a batch"),
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


def test_the_default_that_is_judged_is_that_of_the_library():
    own = inspect.signature(attribute).parameters
    assert (own["search"].default, own["n_steps"].default) == (SEARCH, Params().n_steps)
    values = dict.fromkeys(ESTIMATORS, 0.4) | {SEARCH: 0.95}
    rows = [
        (name, "text", "igi", rule, "top_k_overlap", "all", value)
        for rule in bench_locating.RULES
        for name, value in values.items()
    ]
    columns = ["estimator", "pair", "kind", "rule", "measure", "layer", "value"]
    cost = pd.DataFrame({"call": list(ESTIMATORS), "seconds": 1.0})
    told = bench_locating.default_lines(cost, pd.DataFrame(rows, columns=columns)).splitlines()
    assert f"The default, `{SEARCH}`, has at least 0.95." in told[0]


def test_squared_gradients_are_compared_in_the_vision_branch_alone():
    pieces = [("text", "igi"), ("text_pictured", "igi"), ("vision", "igi"), ("vision", "ifi")]
    assert bench_locating.compared(PAIRS) == pieces


def test_estimators_are_held_against_exact_by_their_own_rule(monkeypatch):
    asked = []

    def scored(model, batch, branch, **choices):
        asked.append((choices["search"], choices["rule"], choices["n_steps"]))
        assert torch.equal(batch["labels"], whole["labels"][[0, 4]]), "from all over the batch"
        return Scores("text", torch.rand(2, 1, 6), ("0", "1"), "toy")

    monkeypatch.setattr(bench_locating, "attribute", scored)
    whole = questions([(0, 0)] * 5, [7, 9, 8, 7, 9])
    found = bench_locating.agreement(tiny_vl(), {"text": whole}, 2)
    assert asked[:2] == [("exact", "right", 4), ("exact", "gauss", 4)]
    for rule in ("right", "gauss"):
        assert {("greedy", rule, 4), ("shortlist", rule, 4)} <= set(asked)
    assert {("one_pass", "gauss", 16), ("greedy", "stieltjes", 4)} <= set(asked), (
        "those that name a rule keep it"
    )
    assert set(found[found.estimator == "exact, other rule"].rule) == {"right", "gauss"}


def test_questions_compared_come_from_all_over_the_batch():
    batch = {"labels": torch.arange(32)[:, None]}
    assert bench_locating.spread(batch, 6)["labels"].flatten().tolist() == [0, 6, 12, 19, 25, 31]
    assert bench_locating.spread(batch, 40)["labels"].flatten().tolist() == list(range(32))
