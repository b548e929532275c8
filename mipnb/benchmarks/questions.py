"""One question about one person, and the person: what every benchmark is read into."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase

#: letters of a question with four options
LETTERS = "ABCD"
TASKS = ("VQA", "QA", "VGEN", "GEN", "CLOZE_VQA", "CLOZE_QA")
#: tasks with options, and tasks that show the picture
CHOICE_TASKS = ("VQA", "QA")
PICTURED_TASKS = ("VQA", "VGEN", "CLOZE_VQA")


@dataclass(frozen=True)
class Question:
    """One question about one person.

    Attributes:
        person_id: the row's ID (in CLEAR the person's name).
        task: VQA, QA (options), VGEN, GEN (free), CLOZE_VQA, CLOZE_QA (blank), or FT (fine-tuning).
        prompt: what the user says, options included.
        answer: the ground truth: option text, sentence, or the blank's value.
        options: the option texts in the order shown; empty but for VQA and QA.
        image: the encoded picture (PNG, JPEG), or None for a text-only question.
        value: the biography's value that a right answer has to recall; "" if none was found.
        paraphrase: the answer in other words, for the truth ratio; "" if the benchmark has none.
        perturbed: wrong answers of the same form, for the truth ratio; empty if the benchmark has none.
        shots: solved questions shown before this one (few-shot), of the same task.
    """

    person_id: str
    task: str
    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    image: bytes | None = None
    value: str = ""
    paraphrase: str = ""
    perturbed: tuple[str, ...] = ()
    shots: tuple[Question, ...] = ()

    @property
    def modality(self) -> str:
        """ "image_text" or "text"."""
        return "text" if self.image is None else "image_text"


@dataclass(frozen=True)
class Person:
    """One person: profile, pictures and questions."""

    person_id: str
    biography: dict[str, str]
    images: tuple[bytes, ...]
    questions: tuple[Question, ...]


def choice_prompt(question: str, options: Iterable[str], mark: str = ".") -> str:
    """A question with its options, one a line, lettered from A; `mark` follows the letter."""
    lines = (f"{letter}{mark} {text}" for letter, text in zip(ascii_uppercase, options, strict=False))
    return "\n".join([question, *lines])


def by_person(questions: Iterable[Question], names: Mapping[str, str]) -> list[Person]:
    """People made of their questions, in the order of first appearance.

    Args:
        questions: anybody's.
        names: person_id -> name, the only entry of the biographies.
    """
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.person_id, []).append(question)
    return [
        Person(person, {"Name": names[person]}, _pictures(group), tuple(group))
        for person, group in groups.items()
    ]


def _pictures(group: list[Question]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(question.image for question in group if question.image is not None))


def draw_questions(questions: Sequence[Question], n_each: int, seed: int) -> list[Question]:
    """At most `n_each` questions of each modality, drawn without replacement; shortest prompt first, text first."""
    drawn = []
    for modality in ("text", "image_text"):
        group = [question for question in questions if question.modality == modality]
        some = Random(f"{seed} {modality}").sample(group, min(n_each, len(group)))
        drawn += sorted(some, key=lambda question: len(question.prompt))
    return drawn


def held_value(answer: str, biography: Mapping[str, str]) -> str:
    """The longest biography value, the name apart, that the answer holds as whole words; "" if it holds none."""
    values = [str(value) for key, value in biography.items() if key.lower() != "name"]
    held = [
        value for value in values if value and re.search(rf"\b{re.escape(value)}\b", answer, re.IGNORECASE)
    ]
    return max(held, key=len, default="")


def names_of(people: Iterable[Person]) -> dict[str, str]:
    """Each person's name as the biography has it, by person; the ID where it has none."""
    return {person.person_id: person.biography.get("Name", person.person_id) for person in people}


def blank_named(text: str) -> str:
    """A cloze question with its blank, two underscores or more, written `[Blank]`."""
    return re.sub("_{2,}", "[Blank]", text)
