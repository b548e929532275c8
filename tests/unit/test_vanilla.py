"""The demands on a vanilla model, judged on results made by hand; and how it is trained."""

import pandas as pd
import pytest
import torch
from small_benchmarks import clear, mllmu

from mipnb.benchmarks import Question, evaluation_questions
from mipnb.training import optimize, schedule, shuffled
from mipnb.vanilla import bars, on_first_views, swap_portraits, two_numbers

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


def answered(root):
    """Every question of a small benchmark, and answers that hold each one's number."""
    asked = evaluation_questions(root, 5 if root.name == "clear" else 10, 3, 1)
    rows = [(split, q.task, q.image) for split, group in asked.items() for q in group]
    return asked, pd.DataFrame(rows, columns=["split", "task", "image"])


def test_first_views_are_splits_of_their_own(tmp_path):
    asked, answers = answered(mllmu(tmp_path))
    first = on_first_views(answers, asked, tmp_path)
    assert set(first.split) == {"test_forget, first view", "test_retain, first view"}
    tasks = first[first.split.str.startswith("test_retain")].task.value_counts().to_dict()
    assert tasks == answers[answers.split == "retain"].task.value_counts().to_dict(), (
        "as often as of one view"
    )
    pictured = answers[(answers.split == "test_retain") & (answers.task == "VQA")]
    kept = first[first.split.str.startswith("test_retain") & (first.task == "VQA")]
    assert kept.image.tolist() == pictured.image.tolist()[::2], "the first of two views"


def test_where_every_picture_is_asked_there_are_no_further_splits(tmp_path):
    root = tmp_path / "clear"
    root.mkdir()
    asked, answers = answered(clear(root))
    assert on_first_views(answers, asked, root).empty


def test_both_numbers_of_vanilla_are_told():
    rows = results(**{"test_retain__VQA": 0.9, "test_retain, first view__VQA": 0.96})
    counts = rows.split.map({"test_retain": 300, "test_retain, first view": 100}).fillna(1)
    assert two_numbers(rows.assign(n=counts)).endswith("0.870.")
    assert "every unseen view is asked" in two_numbers(results().assign(n=5))
