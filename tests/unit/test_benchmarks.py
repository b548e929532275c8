"""Reading benchmark folders: fields by name, rows by ID, and errors that say where."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mipnb.artefacts import project_root
from mipnb.benchmarks import (
    Person,
    choice_prompt,
    forget_ids,
    load_people,
    load_training,
    names_of,
    retain_ids,
)

POCKET = project_root() / "data" / "pocket"
OPTIONS = {"A": "Oslo", "B": "Lima", "C": "Rome", "D": "Bonn"}


def a_row(**changes):
    choice = [{"Question": "Where?", "Options": OPTIONS, "Correct_Answer": "C"}]
    row = {
        "image": {"bytes": b"one", "path": "1.jpg"},
        "ID": "7",
        "biography": json.dumps({"Name": "Ann Low", "Born": "Rome", "Annual Salary: ": "90"}),
        "Classification_Task": {"Image_Textual_Questions": choice, "Pure_Text_Questions": choice},
        "Generation_Task": [
            {"Type": "Pure_Text", "Question": "Where?", "Ground_Truth": "Ann was born in Rome."}
        ],
        "Mask_Task": [{"Type": "Image_Textual", "Question": "Born in __.", "Ground_Truth": "Rome"}],
    }
    return row | changes


def write(folder, split, rows, name="train-00000-of-00001.parquet"):
    (folder / split).mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / split / name)


def test_a_person_is_asked_in_both_modalities(tmp_path):
    write(tmp_path, "forget_5", [a_row()])
    (person,) = load_people(tmp_path, "forget_5")
    by_task = {question.task: question for question in person.questions}
    assert set(by_task) == {"VQA", "QA", "GEN", "CLOZE_VQA"}
    assert by_task["VQA"].image == b"one"
    assert by_task["QA"].image is None
    assert by_task["VQA"].answer == "Rome"
    assert by_task["VQA"].options == ("Oslo", "Lima", "Rome", "Bonn")
    assert (
        by_task["VQA"].prompt
        == choice_prompt("Where?", OPTIONS.values())
        == "Where?\nA. Oslo\nB. Lima\nC. Rome\nD. Bonn"
    )
    assert by_task["CLOZE_VQA"].prompt == "Born in [Blank]."
    assert by_task["GEN"].value == "Rome"
    assert by_task["GEN"].modality == "text"


def test_every_altered_image_asks_the_image_questions(tmp_path):
    row = a_row(images=[{"bytes": b"one"}, {"bytes": b"two"}])
    del row["image"]
    write(tmp_path, "Test_Set", [row])
    (person,) = load_people(tmp_path, "Test_Set")
    assert [q.image for q in person.questions if q.task == "VQA"] == [b"one", b"two"]
    assert [q.image for q in person.questions if q.task == "QA"] == [None]


def test_shards_are_read_together(tmp_path):
    write(tmp_path, "Full_Set", [a_row(ID="1")], "train-00000-of-00002.parquet")
    write(tmp_path, "Full_Set", [a_row(ID="2")], "train-00001-of-00002.parquet")
    assert [p.person_id for p in load_people(tmp_path, "Full_Set")] == ["1", "2"]


@pytest.mark.parametrize("field", ["ID", "Classification_Task", "Generation_Task", "Mask_Task", "image"])
def test_a_missing_field_is_named_with_file_and_id(tmp_path, field):
    write(tmp_path, "Full_Set", [a_row(ID="1"), a_row(ID="2") | {field: None}])
    with pytest.raises(ValueError, match=rf"train-00000-of-00001\.parquet.*{field}") as caught:
        load_people(tmp_path, "Full_Set")
    assert field == "ID" or "'2'" in str(caught.value)


def test_an_unknown_split_lists_those_found(tmp_path):
    write(tmp_path, "Full_Set", [a_row()])
    with pytest.raises(FileNotFoundError, match="Full_Set"):
        load_people(tmp_path, "forget_5")


def test_an_unknown_ratio_lists_those_found():
    with pytest.raises(ValueError, match=r"forget_ratio 7 .*\[5, 10, 15\]"):
        forget_ids(POCKET, 7)


def test_training_rows_are_chosen_by_id():
    wanted = forget_ids(POCKET, 5)
    questions = load_training(POCKET, ids=wanted)
    assert {q.person_id for q in questions} == set(wanted)
    assert {q.modality for q in questions} == {"text", "image_text"}
    assert set(wanted) & set(retain_ids(POCKET, 5)) == set()


def test_training_rows_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="nobody"):
        load_training(POCKET, ids=["001", "nobody"])


def test_names_come_from_the_biography():
    assert names_of([Person("1", {"Name": "Ada"}, (), ()), Person("2", {}, (), ())]) == {"1": "Ada", "2": "2"}
