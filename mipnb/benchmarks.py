"""Reading a benchmark folder in MLLMU-Bench's layout (Liu et al., NAACL 2025): the real one and the pocket one.

A folder holds one sub-folder a configuration, each with parquet files. Rows are matched by `ID`, never by order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq

from mipnb.artefacts import under_root

LETTERS = "ABCD"
#: (column, list below it, task, whether the picture is shown)
_CHOICE = (("Image_Textual_Questions", "VQA", True), ("Pure_Text_Questions", "QA", False))
_OPEN = (("Generation_Task", "VGEN", "GEN"), ("Mask_Task", "CLOZE_VQA", "CLOZE_QA"))
TASKS = ("VQA", "QA", "VGEN", "GEN", "CLOZE_VQA", "CLOZE_QA")


@dataclass(frozen=True)
class Question:
    """One question about one person.

    Attributes:
        person_id: the row's ID.
        task: VQA, QA (four options), VGEN, GEN (free), CLOZE_VQA, CLOZE_QA (blank), or FT (fine-tuning).
        prompt: what the user says, options included.
        answer: the ground truth: option text, sentence, or the blank's value.
        options: the option texts in the order shown; empty but for VQA and QA.
        image: the encoded picture (PNG, JPEG), or None for a text-only question.
        value: the biography's value that a right answer has to recall; "" if none was found.
    """

    person_id: str
    task: str
    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    image: bytes | None = None
    value: str = ""

    @property
    def modality(self) -> str:
        """ "image_text" or "text"."""
        return "text" if self.image is None else "image_text"


@dataclass(frozen=True)
class Person:
    """One row of task structs: a person, the pictures and the questions."""

    person_id: str
    biography: dict[str, str]
    images: tuple[bytes, ...]
    questions: tuple[Question, ...]


def load_people(root: str | Path, split: str) -> list[Person]:
    """The people of a configuration such as forget_5, Full_Set, Test_Set or Retain_Set.

    Every picture of a row (Test_Set may have several) asks every image question.

    Raises:
        FileNotFoundError: there is no such configuration.
        ValueError: a row lacks a field; the message gives file, ID and field.
    """
    return [_person(row, where) for row, where in _rows(root, split)]


def names_of(people: Iterable[Person]) -> dict[str, str]:
    """Each person's name as the biography has it, by person; the ID where it has none."""
    return {person.person_id: person.biography.get("Name", person.person_id) for person in people}


def load_training(
    root: str | Path, split: str = "ft_Data", ids: Iterable[str] | None = None
) -> list[Question]:
    """Fine-tuning questions (task FT), of some people or of all, in the file's order.

    A row without a picture holds text-only questions. `ids` given: only these people; ValueError if one is missing.
    """
    wanted = None if ids is None else set(ids)
    found = [
        Question(row["ID"], "FT", pair["Question"], pair["Answer"], image=image)
        for row, where in _rows(root, split)
        if wanted is None or row["ID"] in wanted
        for image in [_images(row, where, optional=True)[0]]
        for pair in json.loads(_field(row, "metadata", where))
    ]
    if wanted is not None and (missing := wanted - {question.person_id for question in found}):
        raise ValueError(f"{under_root(root) / split} has no training rows for {sorted(missing)}")
    return found


def forget_ids(root: str | Path, ratio: int) -> list[str]:
    """IDs of the people to forget at a ratio in percent (configuration forget_<ratio>)."""
    return _ids(root, f"forget_{_ratio(root, ratio)}")


def retain_ids(root: str | Path, ratio: int) -> list[str]:
    """IDs of the people to keep at a forget ratio in percent (configuration retain_<100 - ratio>)."""
    return _ids(root, f"retain_{100 - _ratio(root, ratio)}")


def evaluation_questions(root: str | Path, ratio: int, n_retain: int, seed: int) -> dict[str, list[Question]]:
    """What an evaluation asks, by split.

    Args:
        root: the benchmark.
        ratio: forget ratio, percent; all forget people are asked.
        n_retain: how many retain people are asked, drawn by `seed`; at most all of them.
        seed: of the draw.

    Returns:
        forget, retain: training views and phrasings; test_forget, test_retain: the same people in Test_Set (other views
        and phrasings); celebrity (Retain_Set) and, where the benchmark has them, holdout (Holdout_Set).
    """
    forgotten, kept = set(forget_ids(root, ratio)), retain_ids(root, ratio)
    asked = set(Random(seed).sample(kept, min(n_retain, len(kept))))
    full, test = load_people(root, "Full_Set"), load_people(root, "Test_Set")
    groups = {
        "forget": [person for person in full if person.person_id in forgotten],
        "retain": [person for person in full if person.person_id in asked],
        "test_forget": [person for person in test if person.person_id in forgotten],
        "test_retain": [person for person in test if person.person_id in asked],
        "celebrity": load_people(root, "Retain_Set"),
    }
    if (under_root(root) / "Holdout_Set").is_dir():
        groups["holdout"] = load_people(root, "Holdout_Set")
    return {split: [q for person in people for q in person.questions] for split, people in groups.items()}


def draw_questions(questions: Iterable[Question], n_each: int, seed: int) -> list[Question]:
    """At most `n_each` questions of each modality, drawn without replacement; shortest prompt first, text first."""
    drawn = []
    for modality in ("text", "image_text"):
        group = [question for question in questions if question.modality == modality]
        some = Random(f"{seed} {modality}").sample(group, min(n_each, len(group)))
        drawn += sorted(some, key=lambda question: len(question.prompt))
    return drawn


def _ratio(root: str | Path, ratio: int) -> int:
    found = sorted(int(path.name.split("_")[1]) for path in under_root(root).glob("forget_*"))
    if ratio not in found:
        raise ValueError(f"forget_ratio {ratio} does not exist in {root}; it has {found} (percent)")
    return ratio


def _ids(root: str | Path, split: str) -> list[str]:
    return [row["ID"] for row, _ in _rows(root, split, columns=["ID"])]


def _rows(
    root: str | Path, split: str, columns: list[str] | None = None
) -> Iterator[tuple[dict[str, Any], Path]]:
    files = sorted((under_root(root) / split).glob("*.parquet"))
    if not files:
        found = sorted(path.parent.name for path in under_root(root).glob("*/*.parquet"))
        raise FileNotFoundError(
            f"no parquet files in {under_root(root) / split}; configurations found: {sorted(set(found))}"
        )
    for file in files:
        for row in pq.read_table(file, columns=columns).to_pylist():
            _field(row, "ID", file)
            yield row, file


def _field(row: dict[str, Any], name: str, where: Path, inside: str = "") -> Any:
    value = row.get(name)
    if value is None:
        identity = row.get("ID", "?")
        raise ValueError(f"{where}: row {identity!r} lacks field {inside + name!r}; found {sorted(row)}")
    return value


def _images(row: dict[str, Any], where: Path, optional: bool = False) -> tuple[bytes | None, ...]:
    found = row.get("images") or ([row["image"]] if row.get("image") else [])
    if not found and not optional:
        raise ValueError(f"{where}: row {row['ID']!r} lacks field 'image' (or 'images'); found {sorted(row)}")
    return tuple(image["bytes"] for image in found) or (None,)


def _person(row: dict[str, Any], where: Path) -> Person:
    images = _images(row, where)
    biography = json.loads(row.get("biography") or "{}")
    questions = [*_choice_questions(row, where), *_open_questions(row, where)]
    shown = [replace(q, value=_value(q.answer, biography)) for q in questions]
    asked = tuple(
        replace(q, image=image)
        for q in shown
        for image in (images if q.task in ("VQA", "VGEN", "CLOZE_VQA") else [None])
    )
    return Person(row["ID"], biography, images, asked)


def _choice_questions(row: dict[str, Any], where: Path) -> Iterator[Question]:
    task_struct = _field(row, "Classification_Task", where)
    for name, task, _ in _CHOICE:
        for item in _field({**task_struct, "ID": row["ID"]}, name, where, "Classification_Task."):
            options = tuple(item["Options"][letter] for letter in LETTERS)
            gold = item["Options"][item["Correct_Answer"]]
            yield Question(row["ID"], task, choice_prompt(item["Question"], options), gold, options)


def choice_prompt(question: str, options: Iterable[str]) -> str:
    """A question with its options, one a line, lettered A to D."""
    return "\n".join(
        [question, *(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))]
    )


def _open_questions(row: dict[str, Any], where: Path) -> Iterator[Question]:
    for column, with_image, without in _OPEN:
        for item in _field(row, column, where):
            task = with_image if item["Type"].startswith("Image") else without
            prompt = item["Question"].replace("__", "[Blank]") if column == "Mask_Task" else item["Question"]
            yield Question(row["ID"], task, prompt, item["Ground_Truth"])


def _value(answer: str, biography: dict[str, str]) -> str:
    """The longest biography value, the name apart, that the answer holds as whole words."""
    values = [str(value) for key, value in biography.items() if key.strip().lower() != "name"]
    held = [
        value for value in values if value and re.search(rf"\b{re.escape(value)}\b", answer, re.IGNORECASE)
    ]
    return max(held, key=len, default="")
