"""Views, people and tables of the evaluation, on a handful of questions and numbers."""

from collections import Counter

import pandas as pd
import pytest
import small_benchmarks
from small_benchmarks import clear, custom, custom_rows, mllmu

from mipnb.artefacts import project_root
from mipnb.asking import (
    change_table,
    first_portraits,
    first_views,
    one_view_each,
    some_people,
    views_beside,
    views_told,
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


def counts(asked: dict[str, list[Question]]) -> dict[str, Counter]:
    return {split: Counter(question.task for question in group) for split, group in asked.items()}


def test_every_picture_of_clear_is_asked(tmp_path):
    root = clear(tmp_path)
    whole = evaluation_questions(root, 5, 9, 1)
    assert one_view_each(whole, root) == whole
    assert counts(whole)["retain"] == {"VQA": 6, "VGEN": 18, "GEN": 18}


def test_every_picture_of_a_users_own_is_asked(tmp_path):
    rows = [row | {"set": "test_retain"} for row in custom_rows()[5:7]]
    rows.append(rows[0] | {"image": "pictures/3.png"})
    root = custom(tmp_path, [*custom_rows(), *rows])
    whole = evaluation_questions(root, 25, 3, 1)
    assert one_view_each(whole, root) == whole
    assert counts(whole)["test_retain"] == {"VQA": 2, "QA": 1}


def test_of_mllmu_benchs_test_views_the_first_is_asked(tmp_path):
    root = mllmu(tmp_path)
    whole = evaluation_questions(root, 10, 3, 1)
    asked = one_view_each(whole, root)
    once = dict.fromkeys(("VQA", "QA", "VGEN", "GEN", "CLOZE_VQA", "CLOZE_QA"), 3)
    assert counts(asked)["test_retain"] == counts(asked)["retain"] == once
    assert counts(whole)["test_retain"] == {task: 6 if "V" in task else 3 for task in once}
    others = set(whole) - {"test_forget", "test_retain"}
    assert {split: asked[split] for split in others} == {split: whole[split] for split in others}


def test_on_pocket_every_split_is_asked_by_one_view():
    root = project_root() / "data" / "pocket"
    whole = evaluation_questions(root, 5, 20, 42)
    assert one_view_each(whole, root) == {split: first_views(group) for split, group in whole.items()}


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


def test_two_numbers_of_vanilla_are_told_apart_by_views():
    told = views_told((0.9, 300), (0.96, 100))
    assert "0.900 over all unseen views (300 questions" in told
    assert "0.960 over the first view of each person (100" in told
    assert told.endswith("the others are read less well: 0.870.")
    assert views_told((0.9, 300), (0.8, 100)).endswith("read better: 0.950.")
    assert "every unseen view is asked" in views_told((0.9, 300), (0.9, 300))


def test_vanilla_here_stands_beside_the_bar_of_the_first_notebook(results: pd.DataFrame):
    here = results.assign(split="test_retain", task="VQA", modality="image_text")[:1].assign(value=1.0, n=3)
    bars = pd.DataFrame(
        [("test_retain", "VQA", "accuracy", 0.8)], columns=["split", "task", "metric", "measured"]
    )
    asked = {"test_retain": [question("1", bytes([view])) for view in range(6)] + [question("1", None)]}
    assert "0.800 over all unseen views (6 questions" in (told := views_beside(here, bars, asked))
    assert "1.000 over the first view of each person (3," in told
    assert told.endswith("0.600.")
    assert "not to be compared" in views_beside(here, bars, asked, same_way=False)
    assert "no unseen views" in views_beside(results, bars, asked)


def test_tasks_are_shown_by_their_short_names(results: pd.DataFrame):
    cloze = results.replace({"task": {"QA": "CLOZE_QA"}})
    assert change_table(cloze).columns.tolist() == ["CLOZE"]
    assert with_interval(cloze, ["forget"], ["vanilla"]).index.tolist() == [("forget", "CLOZE", "accuracy")]
