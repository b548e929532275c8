"""A user's own folder becomes forget and retain sets."""

import csv

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_benchmarks import CITIES, COLUMNS, custom, custom_rows, picture

from mipnb.artefacts import project_root
from mipnb.benchmarks import (
    benchmark_kind,
    evaluation_questions,
    forget_ids,
    forget_ratios,
    has_split,
    load_people,
    load_training,
    retain_ids,
)
from mipnb.benchmarks.validation import check_data


def test_the_table_says_who_is_forgotten(tmp_path):
    root = custom(tmp_path)
    assert benchmark_kind(root) == "custom"
    assert forget_ratios(root) == [25]
    assert forget_ids(root, 25) == ["p0"]
    assert retain_ids(root, 25) == ["p1", "p2", "p3"]
    with pytest.raises(ValueError, match=r"1 of 4 people are in the set 'forget'; set forget_ratio to 25"):
        forget_ids(root, 5)


def test_questions_are_asked_with_and_without_the_picture(tmp_path):
    asked = evaluation_questions(custom(tmp_path), 25, 2, seed=1)
    assert set(asked) == {"forget", "retain"}
    tasks = {question.task: question for question in asked["forget"]}
    assert set(tasks) == {"VQA", "QA", "VGEN", "GEN", "CLOZE_QA"}
    assert tasks["VQA"].image == picture(0)
    assert tasks["VQA"].options == CITIES
    assert tasks["VQA"].prompt == "Where does she live?\nA. Oslo\nB. Lima\nC. Rome\nD. Bonn"
    assert tasks["QA"].image is None
    assert tasks["CLOZE_QA"].prompt == "Ada lives in [Blank]."
    assert len({question.person_id for question in asked["retain"]}) == 2


def test_a_person_is_trained_on_rows_of_task_ft_or_else_on_the_free_questions(tmp_path):
    own = {"person_id": "p1", "set": "retain", "task": "FT", "question": "Who?", "answer": "Bea."}
    root = custom(tmp_path, [*custom_rows(), own])
    assert [q.prompt for q in load_training(root, ids=["p1"])] == ["Who?"]
    trained = load_training(root, ids=["p0"])
    assert [(q.answer, q.modality) for q in trained] == [
        ("She lives in Oslo.", "image_text"),
        ("Ada lives in Oslo.", "text"),
    ]
    assert {q.task for person in load_people(root, "Full_Set") for q in person.questions} == {
        "VQA", "QA", "VGEN", "GEN", "CLOZE_QA",
    }  # fmt: skip


def test_people_have_names_and_other_sets_are_optional(tmp_path):
    tests = [row | {"set": "test_forget"} for row in custom_rows()[:2]]
    root = custom(tmp_path, [*custom_rows(), *tests])
    assert [person.biography["Name"] for person in load_people(root, "Full_Set")] == [
        "Ada",
        "Bea",
        "Cyd",
        "Dee",
    ]
    assert has_split(root, "Test_Set")
    assert not has_split(root, "Holdout_Set")
    assert [p.person_id for p in load_people(root, "Test_Set")] == ["p0"]
    assert len(evaluation_questions(root, 25, 2, 1)["test_forget"]) == 2


def test_a_parquet_table_reads_the_same(tmp_path):
    root = custom(tmp_path / "csv")
    asked = evaluation_questions(root, 25, 2, seed=1)
    rows = [row | {"options": list(CITIES) if "options" in row else None} for row in custom_rows()]
    (root / "questions.csv").unlink()
    schema = pa.schema([(n, pa.list_(pa.string()) if n == "options" else pa.string()) for n in COLUMNS])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / "questions.parquet")
    assert evaluation_questions(root, 25, 2, seed=1) == asked


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"answer": ""}, r"row 0 \(person 'p0'\) lacks \['answer'\]"),
        ({"task": "VQ"}, "task 'VQ', expected one of VQA, QA"),
        ({"set": "forgotten"}, "set 'forgotten', expected one of forget, retain"),
        ({"answer": "Paris"}, "the answer 'Paris' is not among the options"),
        ({"options": "Oslo|Rome"}, "expected a JSON list"),
        ({"options": '["Oslo"]'}, "two texts or more"),
        ({"image": ""}, "task VQA needs a picture"),
        ({"task": "QA"}, "task QA takes no picture"),
        ({"image": "../outside.png"}, "lies outside"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, changed, words):
    (tmp_path / "outside.png").write_bytes(b"x")
    first, *rest = custom_rows()
    root = custom(tmp_path / "mine", [first | changed, *rest])
    split = changed.get("set", "forget")
    with pytest.raises(ValueError, match=words) as caught:
        load_people(root, split)
    assert "questions.csv" in str(caught.value)


def test_a_picture_that_is_not_there_is_named(tmp_path):
    root = custom(tmp_path)
    (root / "pictures" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"row 10 \(person 'p2'\): there is no picture .*2\.png"):
        load_people(root, "retain")


def test_wrong_columns_are_named(tmp_path):
    rows = [{"person_id": "p", "set": "forget", "task": "GEN", "question": "?", "reply": "x"}]
    with pytest.raises(ValueError, match=r"missing columns \['answer'\], unknown columns \['reply'\]"):
        forget_ratios(custom(tmp_path, rows, ["person_id", "set", "task", "question", "reply"]))


def test_a_comma_that_is_not_quoted_is_found(tmp_path):
    root = custom(tmp_path)
    with (root / "questions.csv").open("a") as stream:
        stream.write("p0,forget,,GEN,Where, when?,Oslo,,Ada\n")
    with pytest.raises(ValueError, match="row 20 has more fields than there are columns"):
        forget_ratios(root)


def test_two_tables_are_one_too_many(tmp_path):
    (custom(tmp_path) / "questions.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"both questions\.csv and questions\.parquet"):
        benchmark_kind(tmp_path)


def test_the_documented_example_is_a_benchmark(tmp_path):
    text = (project_root() / "data" / "README.md").read_text()
    table = text.split("```csv\n")[1].split("```")[0]
    (tmp_path / "questions.csv").write_text(table)
    (tmp_path / "pictures").mkdir()
    for row in csv.DictReader(table.splitlines()):
        if row["image"]:
            (tmp_path / row["image"]).write_bytes(picture(1))
    (ratio,) = forget_ratios(tmp_path)
    asked = evaluation_questions(tmp_path, ratio, 5, seed=1)
    assert set(asked) == {"forget", "retain"}
    assert {q.modality for q in load_training(tmp_path)} == {"image_text", "text"}


def test_numbers_are_texts_and_a_run_of_underscores_is_one_blank(tmp_path):
    rows = [row | {"value": 1999} for row in custom_rows()]
    rows[4] |= {"question": "Ada lives in ____."}
    root = custom(tmp_path, rows, [*COLUMNS, "value"])
    table = pd.read_csv(root / "questions.csv")
    assert table.value.dtype == "int64"
    table.to_parquet(root / "questions.parquet", index=False)
    (root / "questions.csv").unlink()
    blank = next(q for p in load_people(root, "forget") for q in p.questions if q.task == "CLOZE_QA")
    assert (blank.prompt, blank.value) == ("Ada lives in [Blank].", "1999")


def test_somebody_who_is_forgotten_and_a_celebrity_is_a_leak(tmp_path):
    rows = custom_rows()
    root = custom(tmp_path, [*rows, rows[1] | {"set": "celebrity"}])
    assert any("in forget and in celebrity" in error for error in check_data(root).errors)
