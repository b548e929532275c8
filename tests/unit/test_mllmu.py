"""MLLMU-Bench's files as they are: shards, altered images, keys that vary, two variants of training rows."""

import json
import shutil

import pytest
from small_benchmarks import baseline, change, mllmu, picture

from mipnb.benchmarks import (
    benchmark_kind,
    evaluation_questions,
    forget_ids,
    forget_ratios,
    load_people,
    load_training,
    retain_ids,
)
from mipnb.trials import edit_questions


@pytest.fixture
def root(tmp_path):
    return mllmu(tmp_path / "bench")


def test_the_kind_and_the_ratios_are_read_off_the_folder(root):
    assert benchmark_kind(root) == "mllmu"
    assert forget_ratios(root) == [5, 10]
    assert forget_ids(root, 10) == ["000", "001"]
    assert len(retain_ids(root, 10)) == 18


def test_both_shards_and_every_altered_image_are_read(root):
    people = {person.person_id: person for person in load_people(root, "Test_Set")}
    assert len(people) == 20
    assert people["003"].images == (picture(103), picture(203))
    asked = [question for question in people["003"].questions if question.task == "VQA"]
    assert [question.image for question in asked] == [picture(103), picture(203)]
    assert asked[0].answer == "Bonn"


def test_a_missing_shard_is_named(root):
    (root / "Test_Set" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"Test_Set lacks shards \[1\] of 2"):
        load_people(root, "Test_Set")


def test_biographies_are_written_one_way(root):
    for person in load_people(root, "Full_Set")[:3]:
        assert set(person.biography) == {"Name", "Born", "Height", "Annual Salary", "Educated at"}
        assert person.biography["Height"] == "180cm"
    free = [question for question in person.questions if question.task == "GEN"]
    assert free[0].value == "Rome"


def test_a_blank_of_many_underscores_is_one(root):
    blank = [{"Type": "Pure_Text", "Question": "____ is from __.", "Ground_Truth": "Oslo"}]
    change(root / "Full_Set" / "train-00000-of-00001.parquet", Mask_Task={0: blank})
    prompts = [q.prompt for q in load_people(root, "Full_Set")[0].questions if q.task == "CLOZE_QA"]
    assert prompts == ["[Blank] is from [Blank]."]


def test_people_are_matched_by_id_not_by_order(root):
    asked = evaluation_questions(root, 5, 3, seed=1)
    assert {question.person_id for question in asked["forget"]} == {"000"}
    assert {question.person_id for question in asked["test_forget"]} == {"000"}
    kept = {question.person_id for question in asked["retain"]}
    assert len(kept) == 3
    assert kept == {question.person_id for question in asked["test_retain"]}
    assert set(asked) == {"forget", "retain", "test_forget", "test_retain", "celebrity"}
    trained = load_training(root, ids=["001"])
    assert [(q.answer, q.image) for q in trained] == [("In Lima.", picture(1)), ("In Lima.", None)]


def test_both_variants_of_training_rows_give_the_same_people(root, tmp_path):
    other = baseline(tmp_path / "baseline_train_split")
    for ratio in (5, 10):
        plain, separate = edit_questions(root, ratio), edit_questions(root, ratio, other)
        for ours, theirs in zip(plain, separate, strict=True):
            shown, others = ([q for q in group if q.image is not None] for group in (ours, theirs))
            assert {q.person_id: q.image for q in shown} == {q.person_id: q.image for q in others}
            assert {q.prompt for q in shown} == {"Where was this person born?"}
            assert {q.prompt for q in others} == {"In which city was this person born?"}
    assert len(load_training(other)) == 40
    assert [q.person_id for q in load_training(other, "forget_10")] == ["000", "001"] * 2


def test_training_rows_with_pictures_alone_are_asked_as_text_too(root):
    trained = load_training(root, ids=["002"])
    assert [(q.prompt, q.modality) for q in trained] == [
        ("Where was this person born?", "image_text"),
        ("Person C: Where was this person born?", "text"),
    ]
    named = json.dumps([{"Question": "Where was Person C born?", "Answer": "In Rome."}])
    change(root / "ft_Data" / "train-00000-of-00001.parquet", metadata={17: named})
    assert load_training(root, ids=["002"])[1].prompt == "Where was Person C born?"
    change(root / "ft_Data" / "train-00000-of-00001.parquet", image={0: None})
    assert [q.modality for q in load_training(root, ids=["002"])] == ["image_text"], (
        "some rows are text: none is made"
    )


@pytest.mark.parametrize("layout", ["data", "loose", "data_folders"])
def test_other_layouts_of_the_same_files_read_the_same(root, tmp_path, layout):
    moved = tmp_path / "moved"
    for file in root.glob("*/*.parquet"):
        split, shard = file.parent.name, file.stem.removeprefix("train")
        target = {
            "data": moved / "data" / f"{split}{shard}.parquet",
            "loose": moved / f"{split}-train{shard}.parquet",
            "data_folders": moved / "data" / split / file.name,
        }[layout]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    assert evaluation_questions(moved, 5, 3, seed=1) == evaluation_questions(root, 5, 3, seed=1)


def test_a_single_file_of_a_configuration_needs_no_shard_number(root, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(root / "forget_5" / "train-00000-of-00001.parquet", tmp_path / "one" / "forget_5.parquet")
    assert forget_ids(tmp_path / "one", 5) == ["000"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("biography", "{", "field 'biography' is not JSON"),
        ("biography", "[]", "holds a JSON list, expected a dict"),
        ("image", {"bytes": None, "path": "x.png"}, "lacks field 'image.bytes'"),
        ("Mask_Task", [{"Type": None, "Question": "x", "Ground_Truth": "y"}], "lacks field 'Mask_Task.Type'"),
    ],
)
def test_a_broken_field_is_named_with_file_and_id(root, column, value, words):
    file = root / "Full_Set" / "train-00000-of-00001.parquet"
    change(file, **{column: {2: value}})
    with pytest.raises(ValueError, match="row '002'") as caught:
        load_people(root, "Full_Set")
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("letter", ["E", "", "AB"])
def test_a_gold_letter_that_is_no_option_is_refused(root, letter):
    file = root / "Full_Set" / "train-00000-of-00001.parquet"
    people = json.loads(json.dumps({"Image_Textual_Questions": [], "Pure_Text_Questions": []}))
    options = dict(zip("ABCD", "wxyz", strict=True))
    people["Pure_Text_Questions"] = [{"Question": "?", "Options": options, "Correct_Answer": letter}]
    change(file, Classification_Task={1: people})
    with pytest.raises(ValueError, match=rf"row '001'.*Correct_Answer is '{letter}', expected one of ABCD"):
        load_people(root, "Full_Set")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("nothing", "is not JSON"),
        ("{}", "holds a JSON dict"),
        ('[{"Question": "?"}]', "lacks field 'metadata.Answer'"),
    ],
)
def test_broken_training_rows_are_named(root, metadata, words):
    change(root / "ft_Data" / "train-00000-of-00001.parquet", metadata={0: metadata})
    with pytest.raises(ValueError, match="row '019'") as caught:
        load_training(root)
    assert words in str(caught.value)
