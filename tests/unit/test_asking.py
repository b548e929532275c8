"""Views, people and tables of the evaluation, on a handful of questions and numbers."""

import pandas as pd
import pytest
import small_benchmarks

from mipnb.asking import (
    change_table,
    first_portraits,
    first_views,
    one_view_each,
    some_people,
    with_interval,
)
from mipnb.benchmarks import Question, evaluation_questions, forget_ratios
from mipnb.evaluation import COLUMNS


def question(person: str, image: bytes | None) -> Question:
    return Question(person, "VQA" if image else "QA", "Who?", "She", image=image)


ASKED = [
    question("1", b"a"),
    question("1", b"b"),
    question("1", None),
    question("2", b"c"),
    question("1", b"a"),
]


def test_only_the_first_view_of_each_person_is_kept():
    assert first_views(ASKED) == [ASKED[0], ASKED[2], ASKED[3], ASKED[4]]
    assert first_portraits(ASKED) == {"1": b"a", "2": b"c"}


def test_some_people_of_some_splits():
    asked = {"forget": ASKED, "retain": [question("3", None), question("4", None)], "holdout": []}
    assert some_people(asked, {"forget": 1, "retain": 5}) == {"1": "forget", "3": "retain", "4": "retain"}


@pytest.fixture
def results() -> pd.DataFrame:
    cells = [("forget", "QA", 1.0, 0.25), ("retain", "QA", 0.8, 0.4), ("holdout", "QA", 0.2, 0.2)]
    rows = []
    for split, task, before, after in cells:
        for method, seed, value in (
            ("vanilla", 1, before),
            ("edited", 1, after - 0.1),
            ("edited", 2, after + 0.1),
        ):
            row = [
                "r",
                "m",
                "b",
                method,
                5,
                seed,
                split,
                task,
                "text",
                "accuracy",
                value,
                9,
                value - 0.05,
                value,
            ]
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def test_forgetting_and_retention_stand_in_one_table(results: pd.DataFrame):
    table = change_table(results)["QA"].round(9).to_dict()
    assert table == {("forgetting rate", "forget", "edited"): 0.75, ("retention", "retain", "edited"): 0.5}


def test_values_are_shown_with_their_intervals(results: pd.DataFrame):
    table = with_interval(results, ["forget"], ["vanilla", "edited"])
    assert table.index.tolist() == [("forget", "QA", "accuracy")]
    assert table.iloc[0].to_dict() == {"vanilla": "1.00 [0.95, 1.00]", "edited": "0.25 [0.20, 0.25]"}


def test_a_split_that_the_benchmark_lacks_gives_an_empty_table(results: pd.DataFrame):
    assert with_interval(results, ["celebrity"], ["vanilla", "edited"]).shape == (0, 2)


@pytest.mark.parametrize("make", [small_benchmarks.mllmu, small_benchmarks.clear, small_benchmarks.custom])
def test_one_view_each_leaves_out_further_pictures_of_test_set_alone(make, tmp_path):
    root = make(tmp_path)
    asked = evaluation_questions(root, forget_ratios(root)[0], 3, 1)
    kept = one_view_each(asked, root)
    for split, group in asked.items():
        tested = make is small_benchmarks.mllmu and split.startswith("test_")
        assert len(kept[split]) == len(first_views(group) if tested else group), split
