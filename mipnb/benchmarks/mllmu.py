"""MLLMU-Bench (Liu et al., NAACL 2025), the real one and the pocket one: one row a person, matched by `ID`.

Handled as the data has it: Test_Set's `images` in place of `image`, its two shards, biographies whose keys vary ("Heights",
"Educated at:", "Annual Salary: "), `Directory` in some configurations only, and both variants of training rows: ft_Data
(all people) and a data set of its own with `metadata` in forget_* and retain_*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from mipnb.benchmarks.questions import (
    LETTERS,
    PICTURED_TASKS,
    Person,
    Question,
    blank_named,
    choice_prompt,
    held_value,
)
from mipnb.benchmarks.tables import Inspected, Row, configurations, field, known_ratio, names, read_rows

#: (list below Classification_Task, task)
_CHOICE = (("Image_Textual_Questions", "VQA"), ("Pure_Text_Questions", "QA"))
#: (column, task with picture, task without)
_OPEN = (("Generation_Task", "VGEN", "GEN"), ("Mask_Task", "CLOZE_VQA", "CLOZE_QA"))
_PROFILE = ("ID", "Directory", "answer", "biography", "image", "images", "metadata", "question")
COLUMNS = frozenset((*_PROFILE, "Classification_Task", *(column for column, _, _ in _OPEN)))
_TRAINING = ("ft_Data", "base_Data")
#: keys of a biography as some rows write them -> as most do
_SAME_KEY = {"Heights": "Height"}


def ratios(root: str | Path) -> list[int]:
    """The forget ratios in percent, ascending."""
    return sorted(int(name[7:]) for name in names(root) if re.fullmatch(r"forget_\d+", name))


def pairs(root: str | Path) -> list[tuple[int, str, str]]:
    """(ratio, forget configuration, retain configuration) of each ratio."""
    return [(ratio, f"forget_{ratio}", f"retain_{100 - ratio}") for ratio in ratios(root)]


def needed(root: str | Path, ratio: int) -> list[str]:
    """The configurations that an evaluation at a ratio reads."""
    return ["Full_Set", "Test_Set", "Retain_Set", f"forget_{ratio}", f"retain_{100 - ratio}"]


def ids(root: str | Path, ratio: int, forget: bool) -> list[str]:
    """IDs of the people to forget, or to keep, at a ratio in percent."""
    known_ratio(root, ratio, ratios(root))
    split = f"forget_{ratio}" if forget else f"retain_{100 - ratio}"
    return [str(field(row.fields, "ID", row.file)) for row in _rows(root, split, columns=["ID"])]


def has(root: str | Path, split: str) -> bool:
    """Whether there is such a configuration."""
    return split in configurations(root)


def people(root: str | Path, split: str, seed: int = 0) -> list[Person]:
    """The people of a configuration; nothing is drawn, so that `seed` changes nothing."""
    return [_person(row) for row in _rows(root, split)]


def training_splits(root: str | Path, split: str = "ft_Data") -> list[str]:
    """The configurations that hold a data set's training rows."""
    alone = split != "ft_Data" or has(root, split) or not pairs(root)
    return [split] if alone else list(pairs(root)[0][1:])


def training(root: str | Path, split: str, wanted: set[str] | None, seed: int = 0) -> Iterator[Question]:
    """Fine-tuning questions in the files' order; nothing is drawn, so that `seed` changes nothing.

    A folder without ft_Data whose forget_* and retain_* hold `metadata` gives those of its smallest ratio: everybody once.
    Where no row at all is without a picture (the published data), every question follows once more as text, after its
    person's name if that is known and the question does not hold it: the text branch needs questions to be located on.
    """
    found, is_pictured = [], True
    for row in (row for name in training_splits(root, split) for row in _rows(root, name)):
        is_pictured &= bool(row.fields.get("image"))
        if wanted is None or str(row.fields["ID"]) in wanted:
            found += _training_questions(row)
    yield from found
    if is_pictured and found:
        yield from _as_text(found, _names(root))


def _as_text(questions: Iterable[Question], names: Mapping[str, str]) -> Iterator[Question]:
    """Each question once without its picture."""
    for question in dict.fromkeys(replace(question, image=None) for question in questions):
        name = names.get(question.person_id, "")
        yield question if name in question.prompt else replace(question, prompt=f"{name}: {question.prompt}")


def _names(root: str | Path) -> dict[str, str]:
    """ID -> name, from the biographies of Full_Set; empty where there is none."""
    rows = _rows(root, "Full_Set", columns=["ID", "biography"]) if has(root, "Full_Set") else ()
    return {str(row.fields["ID"]): str(_biography(row).get("Name", "")) for row in rows}


def evaluation(root: str | Path, ratio: int, n_retain: int, seed: int) -> dict[str, list[Person]]:
    """The people asked in an evaluation, by split; see `mipnb.benchmarks.evaluation_questions`."""
    forgotten, kept = set(ids(root, ratio, True)), ids(root, ratio, False)
    asked = set(Random(seed).sample(kept, min(n_retain, len(kept))))
    full, test = people(root, "Full_Set"), people(root, "Test_Set")
    groups = {
        "forget": [person for person in full if person.person_id in forgotten],
        "retain": [person for person in full if person.person_id in asked],
        "test_forget": [person for person in test if person.person_id in forgotten],
        "test_retain": [person for person in test if person.person_id in asked],
        "celebrity": people(root, "Retain_Set"),
    }
    if has(root, "Holdout_Set"):
        groups["holdout"] = people(root, "Holdout_Set")
    return groups


def inspect(root: str | Path, splits: Iterable[str]) -> Iterator[Inspected]:
    """Every row of some configurations, with what is wrong with it."""
    for split in splits:
        for row in read_rows(root, split, COLUMNS):
            is_training = split in _TRAINING or "metadata" in row.fields
            try:
                field(row.fields, "ID", row.file)
                list(_training_questions(row)) if is_training else _person(row)
                problem = ""
            except ValueError as error:
                problem = str(error)
            found = row.fields.get("images") or [row.fields.get("image")]
            images = tuple(image.get("bytes") for image in found if image)
            person_id = str(row.fields.get("ID") or "?")
            yield Inspected(split, row.file, row.number, person_id, images, problem, once=not is_training)


def _rows(root: str | Path, split: str, columns: list[str] | None = None) -> Iterator[Row]:
    for row in read_rows(root, split, COLUMNS, columns):
        field(row.fields, "ID", row.file)
        yield row


def _images(row: Row, optional: bool = False) -> tuple[bytes | None, ...]:
    fields = row.fields
    found = fields.get("images") or ([fields["image"]] if fields.get("image") else [])
    if not found and not optional:
        raise ValueError(
            f"{row.file}: row {fields['ID']!r} lacks field 'image' (or 'images'); found {sorted(fields)}"
        )
    if any(not image.get("bytes") for image in found):
        raise ValueError(
            f"{row.file}: row {fields['ID']!r} lacks field 'image.bytes'; expected an encoded picture"
        )
    return tuple(image["bytes"] for image in found) or (None,)


def _training_questions(row: Row) -> list[Question]:
    fields, (image, *_) = row.fields, _images(row, optional=True)
    listed = _json(row, "metadata", list)
    return [
        Question(str(fields["ID"]), "FT", *(field({**pair, "ID": fields["ID"]}, name, row.file, "metadata.")
                 for name in ("Question", "Answer")), image=image)
        for pair in listed
    ]  # fmt: skip


def _json(row: Row, name: str, kind: type) -> Any:
    """A field that holds JSON of a kind; ValueError names file, row and field if it does not."""
    text = field(row.fields, name, row.file)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"{row.file}: row {row.fields['ID']!r}: field {name!r} is not JSON ({error})"
        ) from None
    if not isinstance(value, kind):
        found = type(value).__name__
        raise ValueError(
            f"{row.file}: row {row.fields['ID']!r}: field {name!r} holds a JSON {found}, expected a {kind.__name__}"
        )
    return value


def _biography(row: Row) -> dict[str, str]:
    """The profile with its keys written one way: no colon or blank at the end, one name a key."""
    found = _json(row, "biography", dict) if row.fields.get("biography") else {}
    tidy = {key.strip().rstrip(":").strip(): value for key, value in found.items()}
    return {_SAME_KEY.get(key, key): value for key, value in tidy.items()}


def _person(row: Row) -> Person:
    images, biography = _images(row), _biography(row)
    questions = [*_choice_questions(row), *_open_questions(row)]
    shown = [replace(question, value=held_value(question.answer, biography)) for question in questions]
    asked = tuple(
        replace(question, image=image)
        for question in shown
        for image in (images if question.task in PICTURED_TASKS else [None])
    )
    return Person(str(row.fields["ID"]), biography, images, asked)


def _choice_questions(row: Row) -> Iterator[Question]:
    person = row.fields["ID"]
    task_struct = field(row.fields, "Classification_Task", row.file)
    for name, task in _CHOICE:
        for item in field({**task_struct, "ID": person}, name, row.file, "Classification_Task."):
            options, gold = _options({**item, "ID": person}, f"Classification_Task.{name}.", row.file)
            yield Question(str(person), task, choice_prompt(item["Question"], options), gold, options)


def _options(item: dict[str, Any], inside: str, where: Path) -> tuple[tuple[str, ...], str]:
    """The four options and the gold one."""
    texts = {**field(item, "Options", where, inside), "ID": item["ID"]}
    options = tuple(field(texts, letter, where, f"{inside}Options.") for letter in LETTERS)
    letter = field(item, "Correct_Answer", where, inside).strip()
    if letter not in tuple(LETTERS):
        raise ValueError(
            f"{where}: row {item['ID']!r}: {inside}Correct_Answer is {letter!r}, expected one of {LETTERS}"
        )
    field(item, "Question", where, inside)
    return options, options[LETTERS.index(letter)]


def _open_questions(row: Row) -> Iterator[Question]:
    person = row.fields["ID"]
    for column, with_image, without in _OPEN:
        for item in field(row.fields, column, row.file):
            kind, text, truth = (
                field({**item, "ID": person}, name, row.file, f"{column}.")
                for name in ("Type", "Question", "Ground_Truth")
            )
            task = with_image if kind.startswith("Image") else without
            prompt = blank_named(text) if column == "Mask_Task" else text
            yield Question(str(person), task, prompt, truth)
