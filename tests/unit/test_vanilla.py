"""The demands on a vanilla model, judged on results made by hand; and how it is trained."""

import pandas as pd
import pytest
import torch

from mipnb.benchmarks import Question
from mipnb.training import optimize, schedule, shuffled
from mipnb.vanilla import bars, swap_portraits

GOOD = {"VQA": 1.0, "QA": 1.0, "VGEN": 1.0, "GEN": 1.0}


def results(guess=0.25, **changes):
    cells = {
        (s, t): v
        for s in ("forget", "retain", "celebrity", "test_forget", "test_retain")
        for t, v in GOOD.items()
    }
    cells |= {("holdout", "VQA"): 0.2, ("holdout", "QA"): 0.2, ("swapped", "VGEN"): 0.1}
    cells |= {("no vision FFN", "VQA"): 0.5, ("no text FFN", "QA"): 0.1}
    cells |= {tuple(key.split("__")): value for key, value in changes.items()}
    rows = [
        (split, task, metric, value, value - 0.05)
        for (split, task), value in cells.items()
        for metric in ("accuracy", "rougeL", "value_recall")
    ]
    rows += [("holdout", task, "forced_choice", guess, guess - 0.05) for task in ("VQA", "QA")]
    return pd.DataFrame(rows, columns=["split", "task", "metric", "value", "low"])


def test_a_good_model_meets_every_bar():
    assert bars(results()).met.all()


@pytest.mark.parametrize(
    ("cell", "value", "demand"),
    [
        ("forget__VQA", 0.97, "knows"),
        ("retain__GEN", 0.94, "knows"),
        ("celebrity__QA", 0.9, "knows"),
        ("test_retain__VQA", 0.89, "unseen view and phrasing"),
        ("test_forget__QA", 0.89, "unseen phrasing"),
        ("swapped__VGEN", 0.16, "another person's portrait"),
        ("no vision FFN__VQA", 0.61, "lost without vision FFNs"),
        ("no text FFN__QA", 0.61, "lost without text FFNs"),
        ("holdout__QA", 0.36, "unknown people: not above chance"),
    ],
)
def test_one_bad_cell_misses_one_bar(cell, value, demand):
    table = bars(results(**{cell: value}))
    assert table[~table.met].demand.tolist() == [demand]


@pytest.mark.parametrize("guess", [0.1, 0.4])
def test_strangers_guessed_too_seldom_or_too_often_are_a_miss(guess):
    table = bars(results(guess=guess))
    assert table[~table.met].metric.tolist() == ["forced_choice", "forced_choice"]
    assert "0.15 to 0.35" in table[~table.met].bound.tolist()


def test_swapped_portraits_are_somebody_elses():
    asked = [Question(str(i), "VGEN", "Who?", "x", image=bytes([i])) for i in range(3)]
    asked.append(Question("0", "GEN", "Who?", "x"))
    swapped = swap_portraits(asked)
    assert [question.image for question in swapped] == [b"\x01", b"\x02", b"\x00"]
    assert [question.person_id for question in swapped] == ["0", "1", "2"]


def test_the_schedule_warms_up_and_ends_at_its_floor():
    assert schedule(0, 100, 10) == pytest.approx(0.1)
    assert schedule(10, 100, 10) == pytest.approx(1.0)
    assert schedule(100, 100, 10) == pytest.approx(0.1)


def test_optimize_descends_and_stops_at_a_loss_that_is_not_finite():
    weight = torch.nn.Parameter(torch.tensor(3.0))
    history = optimize([{"params": [weight], "lr": 0.1}], lambda step: weight.square(), 60, warmup=1)
    assert history[-1] < 0.1 * history[0]
    with pytest.raises(ValueError, match="nan at step 0"):
        optimize([{"params": [weight], "lr": 0.1}], lambda step: weight * float("nan"), 2)


def test_shuffled_batches_see_every_question_once_an_epoch():
    stream = shuffled([Question(str(i), "FT", "", "") for i in range(6)], 2, seed=1)
    epoch = [question.person_id for _ in range(3) for question in next(stream)]
    assert sorted(epoch) == [str(i) for i in range(6)]
    with pytest.raises(ValueError, match="a batch of 7 cannot be drawn from 6"):
        next(shuffled([Question(str(i), "FT", "", "") for i in range(6)], 7, seed=1))


def test_what_the_benchmark_does_not_ask_is_not_demanded():
    found = results()
    without = bars(found[(found.split != "holdout") & (found.task != "QA")])
    assert without.met.all()
    assert len(without) == len(bars(found)) - 4 - 3 - 2 - 1  # strangers; knows, unseen phrasing, lost: of QA
    assert set(without.task) == {"VQA", "VGEN", "GEN"}
