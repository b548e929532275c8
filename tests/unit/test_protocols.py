"""Prompts and marks of each protocol, and solved examples before a question."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_benchmarks import clear, custom, mllmu, picture

from mipnb.benchmarks import Question, choice_prompt, evaluation_questions
from mipnb.benchmarks.protocols import chat, under_protocol, with_shots
from mipnb.evaluation import score
from mipnb.generation import ANSWER_COLUMNS
from mipnb.metrics import bleu, first_letter, marks, rouge_marks

OPTIONS = ("Oslo", "Lima", "Rome", "Bonn")
CHOICE = Question("p", "QA", choice_prompt("Where?", OPTIONS), "Rome", OPTIONS)
CLOZE = Question("p", "CLOZE_QA", "Born in [Blank].", "Rome")
FREE = Question("p", "GEN", "Where?", "She was born in Rome.")


def test_the_pocket_protocol_changes_nothing(tmp_path):
    root = mllmu(tmp_path)
    plain = evaluation_questions(root, 5, 3, 1)
    assert plain == evaluation_questions(root, 5, 3, 1, "pocket", 0)
    assert not any(question.shots for group in plain.values() for question in group)


def test_mllmu_benchs_own_words():
    choice, cloze, free = (q.prompt for q in under_protocol([CHOICE, CLOZE, FREE], "benchmark", "mllmu"))
    assert choice == (
        "Where?\nA: Oslo\nB: Lima\nC: Rome\nD: Bonn\nJust give ONE letter representing the answer directly."
    )
    assert cloze == (
        "Born in [Blank].\nPlease **ONLY** provide the correct answer that should replace the [Blank]."
    )
    assert free.startswith("Where?\nAnswer the question based on your trained knowledge in one sentence")


def test_the_papers_tables_have_no_blanks():
    assert [q.task for q in under_protocol([CHOICE, CLOZE, FREE], "paper", "mllmu")] == ["QA", "GEN"]


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol 'own', expected one of pocket, benchmark, paper"):
        under_protocol([CHOICE], "own", "mllmu")


def test_clears_captions_are_asked_as_they_are(tmp_path):
    root = clear(tmp_path)
    plain, own = (
        evaluation_questions(root, 10, 3, 1, protocol)["forget"] for protocol in ("pocket", "benchmark")
    )
    for before, after in zip(plain, own, strict=True):
        instruction = (
            "\nJust give ONE letter representing the answer directly." if before.task == "VQA" else ""
        )
        assert after == replace(before, prompt=before.prompt + instruction)


def test_a_users_own_questions_are_asked_in_mllmu_benchs_words(tmp_path):
    asked = evaluation_questions(custom(tmp_path), 25, 2, 1, "benchmark")["forget"]
    assert asked[0].prompt.startswith("Where does she live?\nA: Oslo\n")


# Marks


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ("C", 2),
        ("c.", 2),
        ("(B) Lima", 1),
        ("\n**D**", 3),
        ("Rome", None),
        ("E", None),
        ("3", None),
        ("...", None),
        ("", None),
    ],
)
def test_the_first_character_tells_the_option(said, index):
    assert first_letter(said, OPTIONS) == index


def test_a_text_that_begins_with_an_options_letter_is_taken_for_it():
    assert first_letter("Bonn is it", OPTIONS) == 1  # the benchmark's rule, misreading included
    assert first_letter("F", [*OPTIONS, "e", "f"]) == 5


def row(question, said, value=""):
    fields = {"task": question.task, "generated": said, "answer": question.answer, "value": value}
    return pd.Series(fields | {"options": list(question.options)})


def test_each_protocol_marks_by_its_own_rule():
    assert marks(row(CHOICE, "It is Rome"), "pocket") == {"accuracy": 1, "unparsed": 0}
    assert marks(row(CHOICE, "It is Rome"), "benchmark") == {"accuracy": 0, "unparsed": 1}
    for protocol in ("benchmark", "paper"):
        assert marks(row(CHOICE, "C: Rome"), protocol) == {"accuracy": 1, "unparsed": 0}
        assert marks(row(CHOICE, "D"), protocol) == {"accuracy": 0, "unparsed": 0}
        assert marks(row(CLOZE, "In ROME, surely."), protocol) == {"accuracy": 1}
    assert set(marks(row(FREE, "In Rome.", "Rome"), "pocket")) == {"rougeL", "value_recall"}
    assert set(marks(row(FREE, "In Rome.", "Rome"), "paper")) == {"rougeL"}


def test_rouge_by_hand():
    found = rouge_marks("the cat sat down", "the cat sat on the mat")
    assert found["rouge1"] == pytest.approx(2 * 3 / 10)
    assert found["rouge2"] == pytest.approx(2 * 2 / 8)
    assert found["rougeL"] == pytest.approx(2 * 3 / 10)
    assert found["rougeL_recall"] == pytest.approx(3 / 6)


def test_bleu_by_hand():
    precisions = 4 / 4 * 3 / 3 * 2 / 2 * 1 / 1
    assert bleu("the cat sat on", "the cat sat on the mat") == pytest.approx(precisions * np.exp(1 - 6 / 4))
    smoothed = (3 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** (1 / 4)
    assert bleu("the cat lay on", "the cat sat on") == pytest.approx(smoothed)
    assert bleu("", "the cat") == 0
    assert "bleu" in marks(row(FREE, "In Rome.", "Rome"), "benchmark")


def test_scores_under_the_benchmarks_protocol_are_results():
    answers = pd.DataFrame(
        [("forget", "p", "GEN", "text", "q", FREE.answer, "Rome", [], "She was in Rome.")],
        columns=ANSWER_COLUMNS,
    )
    labels = {"run": "r", "model": "m", "benchmark": "b", "method": "vanilla", "forget_ratio": 5, "seed": 1}
    found = score(answers, **labels, protocol="benchmark").set_index("metric").value
    assert set(found.index) == {"rouge1", "rouge2", "rougeL", "rougeL_recall", "bleu", "value_recall"}
    assert found["rougeL_recall"] == pytest.approx(4 / 5)


# Few shots


def test_shots_are_of_the_task_the_same_for_all_and_of_nobody_asked(tmp_path):
    root = mllmu(tmp_path)
    asked = evaluation_questions(root, 5, 3, 1, "benchmark", n_shots=2)
    busy = {question.person_id for group in asked.values() for question in group}
    shown = {}
    for question in (question for group in asked.values() for question in group):
        assert [shot.task for shot in question.shots] == [question.task] * 2
        assert not busy & {shot.person_id for shot in question.shots}
        assert (question.image is None) == all(shot.image is None for shot in question.shots)
        assert shown.setdefault(question.task, question.shots) == question.shots
    assert shown["QA"][0].answer in "ABCD"
    assert shown["QA"][0].prompt.endswith("directly.")
    plain = evaluation_questions(root, 5, 3, 1, "pocket", n_shots=1)
    assert plain["forget"][0].shots[0].answer in OPTIONS


def test_too_few_people_to_show_is_an_error(tmp_path):
    root = mllmu(tmp_path)
    with pytest.raises(ValueError, match="n_shots = 1: 0 questions of task VQA are left"):
        evaluation_questions(root, 5, 19, 1, "pocket", n_shots=1)


def test_a_chat_shows_each_picture_at_its_place():
    shots = [Question(str(i), "VGEN", f"Who {i}?", f"It is {i}.", image=picture(i)) for i in range(2)]
    (asked,) = with_shots([Question("x", "VGEN", "Who?", "X.", image=picture(9))], shots, 2, "pocket", 0)
    turns, pictures = chat(asked)
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [[part["type"] for part in turn["content"]] for turn in turns[::2]] == [["image", "text"]] * 3
    assert pictures == [shot.image for shot in asked.shots] + [picture(9)]
    assert turns[1]["content"][0]["text"] == asked.shots[0].answer
    assert turns[-1]["content"][-1]["text"] == "Who?"


def test_without_shots_a_chat_is_the_question_alone():
    assert chat(CLOZE) == ([{"role": "user", "content": [{"type": "text", "text": "Born in [Blank]."}]}], [])
