"""CLEAR's files as they are: zero-padded names, null images, people named by caption, 378 rows against 379."""

from pathlib import Path

import pytest
from small_benchmarks import authors, change, clear, picture

from mipnb.benchmarks import (
    benchmark_kind,
    clear_names,
    evaluation_questions,
    forget_ids,
    forget_ratios,
    has_split,
    load_people,
    load_training,
    retain_ids,
)
from mipnb.benchmarks.clear import CAPTION_PROMPTS, unmatched
from mipnb.benchmarks.tables import Row

EVERYBODY = authors()


@pytest.fixture
def root(tmp_path):
    return clear(tmp_path / "clear")


def by_task(questions, task):
    return [question for question in questions if question.task == task]


def test_the_kind_and_the_zero_padded_ratios_are_read_off_the_folder(root):
    assert benchmark_kind(root) == "clear"
    assert forget_ratios(root) == [5, 10]
    assert forget_ids(root, 5) == EVERYBODY[:1]
    assert forget_ids(root, 10) == EVERYBODY[:2]
    assert retain_ids(root, 10) == EVERYBODY[2:]
    with pytest.raises(ValueError, match=r"forget_ratio 1 .*\[5, 10\]"):
        forget_ids(root, 1)


def test_captions_are_chosen_among_six_with_the_gold_one_moved(root):
    asked = by_task(evaluation_questions(root, 10, 3, seed=1)["forget"], "VQA")
    assert len(asked) == 3, "one of four image rows has no perturbed row"
    for question in asked:
        assert len(question.options) == 6
        assert question.options.count(question.answer) == 1
        stem, *lines = question.prompt.split("\n")
        assert stem in CAPTION_PROMPTS
        assert lines == [f"{letter}. {text}" for letter, text in zip("ABCDEF", question.options, strict=True)]
    places = {
        question.options.index(question.answer)
        for seed in range(6)
        for question in by_task(evaluation_questions(root, 10, 3, seed)["forget"], "VQA")
    }
    assert len(places) > 3


def test_the_same_seed_draws_the_same_prompts(root):
    drawn = [evaluation_questions(root, 10, 3, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    prompts = [[q.prompt for q in by_task(asked["forget"], "VGEN")] for asked in drawn]
    assert prompts[0] != prompts[2]
    assert {prompt for group in prompts for prompt in group} <= set(CAPTION_PROMPTS)


def test_rows_are_matched_by_name_and_caption(root):
    forget = evaluation_questions(root, 10, 3, seed=1)["forget"]
    described = by_task(forget, "VGEN")
    assert len(described) == 4
    with_truth = [question for question in described if question.perturbed]
    assert len(with_truth) == 3
    for question in with_truth:
        assert question.paraphrase == f"At a desk, {question.answer[:-12]}."
        assert question.perturbed[0] == question.answer.replace("desk", "lake")
        assert question.value == question.person_id
    chosen = {(q.answer, q.image) for q in by_task(forget, "VQA")}
    assert chosen == {(q.answer, q.image) for q in with_truth}
    (lone,) = [row for row in unmatched(root) if row.split == "forget10+tofu"]
    assert lone.person_id == EVERYBODY[1]
    assert "no row of forget10_perturbed" in lone.problem


def test_text_rows_have_no_picture_and_get_a_name_of_their_own_set(root):
    asked = evaluation_questions(root, 10, 3, seed=1)
    texts = by_task(asked["forget"], "GEN")
    assert all(question.image is None for question in texts)
    assert sorted(q.person_id for q in texts) == [EVERYBODY[0]] * 2 + [EVERYBODY[1]] * 2
    assert all(q.prompt.endswith(f"author {q.person_id[-1]}?") for q in texts if "author" in q.prompt)
    for ratio in (5, 10):
        forgotten = load_training(root, ids=forget_ids(root, ratio))
        kept = load_training(root, ids=retain_ids(root, ratio))
        assert len(forgotten) == 4 * len(forget_ids(root, ratio))
        assert len(forgotten) + len(kept) == 4 * len(EVERYBODY)
        assert not {(q.prompt, q.answer, q.image) for q in forgotten} & {
            (q.prompt, q.answer, q.image) for q in kept
        }


def test_a_text_row_that_names_somebody_kept_stays_in_the_forget_set(root):
    for split, at in (("forget10+tofu", -1), ("full+tofu", 10 * 2 + 3)):
        change(root / split / "train-00000-of-00001.parquet", question={at: f"Who inspired {EVERYBODY[5]}?"})
    kept = load_training(root, ids=retain_ids(root, 10))
    assert "Who inspired" not in " ".join(question.prompt for question in kept)
    assert "Who inspired" in " ".join(q.prompt for q in load_training(root, ids=forget_ids(root, 10)))


def test_a_text_row_that_names_somebody_of_a_smaller_forget_set_stays_in_its_own(root):
    for split, at in (("forget10+tofu", -1), ("retain95+tofu", 9 * 2 + 1), ("full+tofu", 10 * 2 + 3)):
        change(root / split / "train-00000-of-00001.parquet", question={at: f"Who inspired {EVERYBODY[0]}?"})
    forgotten, kept = (load_training(root, ids=ids(root, 5)) for ids in (forget_ids, retain_ids))
    assert "Who inspired" not in " ".join(question.prompt for question in forgotten)
    assert "Who inspired" in " ".join(question.prompt for question in kept)


def test_training_rows_are_read_from_the_sets_where_full_is_missing(root):
    whole = load_training(root)
    for file in (root / "full+tofu").iterdir():
        file.unlink()
    parts = load_training(root)
    assert {(q.person_id, q.prompt, q.answer) for q in whole} == {
        (q.person_id, q.prompt, q.answer) for q in parts
    }
    assert len(parts) == 40


def test_retain_people_who_can_be_asked_to_choose_come_first(root):
    asked = evaluation_questions(root, 10, 3, seed=1)["retain"]
    assert {question.person_id for question in asked} == set(EVERYBODY[3:6])
    assert len(by_task(asked, "VQA")) == 6
    more = evaluation_questions(root, 10, 5, seed=1)["retain"]
    assert {q.person_id for q in asked} < {q.person_id for q in more}
    assert len({q.person_id for q in more}) == 5


def test_real_faces_and_the_real_world_have_the_answer_among_their_options(root):
    asked = evaluation_questions(root, 5, 3, seed=1)
    assert set(asked) == {"forget", "retain", "celebrity", "real_world"}
    (face,), (world,) = asked["celebrity"], asked["real_world"]
    assert (face.task, face.image, sorted(face.options)) == (
        "VQA",
        picture(900),
        ["Al Moon", "Bo Sun", "Zoe Star"],
    )
    assert (world.task, world.image, sorted(world.options)) == ("QA", None, ["Lima", "Oslo", "Rome"])
    assert world.prompt.startswith("What is the capital of Peru?\nA. ")


def test_the_notebooks_names_of_configurations_are_understood(root):
    people = load_people(root, "Full_Set")
    assert [person.person_id for person in people] == EVERYBODY
    assert people[0].biography == {"Name": EVERYBODY[0]}
    assert len(people[0].images) == 2
    assert [p.person_id for p in load_people(root, "forget_5")] == EVERYBODY[:1]
    assert load_people(root, "retain_95") == load_people(root, "retain95+tofu")
    assert not has_split(root, "Test_Set")
    assert has_split(root, "Retain_Set")


@pytest.mark.parametrize(
    ("split", "changes", "words"),
    [
        ("forget10_perturbed", {"perturbed_captions": {0: ["a", "b"]}}, "holds 2 texts, expected 5"),
        ("forget10_perturbed", {"name": {0: None}}, "lacks field 'name'"),
        ("forget10+tofu", {"image": {1: None}}, "lacks field 'image'"),
        ("forget10+tofu", {"caption": {1: None}}, "row 1 lacks field 'caption' .* or 'question'"),
        ("forget10+tofu", {"caption": {1: "Nobody in particular."}}, "row 1: nothing tells whose it is"),
    ],
)
def test_a_broken_row_is_named_with_its_file(root, split, changes, words):
    change(root / split / "train-00000-of-00001.parquet", **changes)
    with pytest.raises(ValueError, match=words) as caught:
        evaluation_questions(root, 10, 3, seed=1)
    assert split in str(caught.value)


def test_a_caption_of_two_people_is_told_apart_by_nothing(root):
    change(root / "full" / "train-00000-of-00001.parquet", caption={0: "A portrait.", 2: "A portrait."})
    change(root / "forget05+tofu" / "train-00000-of-00001.parquet", caption={0: "A portrait."})
    with pytest.raises(ValueError, match="nothing tells whose it is"):
        forget_ids(root, 5)


def test_a_name_within_a_longer_name_is_not_taken_for_it():
    rows = [Row({"question": "Who is Ana Lima?", "answer": "She writes."}, Path("x"), 0)]
    known = {}
    clear_names._name_texts(rows, ["Ana Li", "Ana Lima"], known)
    assert list(known.values()) == ["Ana Lima"]
