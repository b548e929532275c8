"""A user's own folder: pictures, and a table of questions (`questions.csv` or `questions.parquet`) that says who is forgotten.

data/README.md describes the columns with an example. Everybody in the set `forget` is forgotten, everybody in `retain` is
kept; `test_forget` and `test_retain` ask the same people otherwise, `celebrity` and `holdout` other people.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from mipnb.artefacts import under_root
from mipnb.benchmarks.questions import (
    CHOICE_TASKS,
    PICTURED_TASKS,
    TASKS,
    Person,
    Question,
    blank_named,
    by_person,
    choice_prompt,
)
from mipnb.benchmarks.tables import Inspected, Row, open_table

TABLES = ("questions.csv", "questions.parquet")
REQUIRED = ("person_id", "set", "task", "question", "answer")
OPTIONAL = ("image", "options", "name", "value")
SETS = ("forget", "retain", "test_forget", "test_retain", "celebrity", "holdout")
#: what a person without fine-tuning rows is trained on
_STATEMENTS = ("VGEN", "GEN")
#: the names that the notebooks ask by -> sets
_ALIASES = {
    "Full_Set": ("forget", "retain"), "Test_Set": ("test_forget", "test_retain"), "Retain_Set": ("celebrity",),
    "Holdout_Set": ("holdout",), "ft_Data": ("forget", "retain"),
}  # fmt: skip


def table_of(root: str | Path) -> Path | None:
    """The folder's table of questions, or None if it has none; ValueError if it has two."""
    found = [under_root(root) / name for name in TABLES if (under_root(root) / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{under_root(root)} has both {' and '.join(TABLES)}: keep one of them")
    return found[0] if found else None


def ratios(root: str | Path) -> list[int]:
    """The one forget ratio: the share of people to forget among forget and retain, in percent, from 1 to 99."""
    forgotten, kept = (len(_ids(root, name)) for name in ("forget", "retain"))
    if not forgotten or not kept:
        empty = "forget" if not forgotten else "retain"
        raise ValueError(
            f"{table_of(root)}: nobody is in the set {empty!r}; name it in column 'set' of some rows"
        )
    return [min(99, max(1, round(100 * forgotten / (forgotten + kept))))]


def pairs(root: str | Path) -> list[tuple[int, str, str]]:
    """(ratio, forget set, retain set) of the one ratio."""
    return [(ratio, "forget", "retain") for ratio in ratios(root)]


def needed(root: str | Path, ratio: int) -> list[str]:
    """The sets that an evaluation reads at least."""
    return ["forget", "retain"]


def ids(root: str | Path, ratio: int, forget: bool) -> list[str]:
    """IDs of the people to forget, or to keep.

    Raises:
        ValueError: `ratio` is not the share of people to forget that the table makes.
    """
    if ratio not in ratios(root):
        forgotten, kept = len(_ids(root, "forget")), len(_ids(root, "retain"))
        raise ValueError(
            f"forget_ratio {ratio} does not fit {table_of(root)}: {forgotten} of {forgotten + kept} people are in the set "
            f"'forget'; set forget_ratio to {ratios(root)[0]} (percent)"
        )
    return _ids(root, "forget" if forget else "retain")


def has(root: str | Path, split: str) -> bool:
    """Whether the table has rows of a set, by its name or MLLMU-Bench's."""
    return any(name in found_sets(root) for name in _sets(split))


def people(root: str | Path, split: str, seed: int = 0) -> list[Person]:
    """The people of a set (or of MLLMU-Bench's name for it) with what they are asked; `seed` changes nothing."""
    rows = [
        row for row in _rows(root) if row.fields.get("set") in _sets(split) and row.fields.get("task") != "FT"
    ]
    questions = [_question(row, root) for row in rows]
    names = {
        str(row.fields["person_id"]): row.fields.get("name") or str(row.fields["person_id"]) for row in rows
    }
    return by_person(questions, names)


def training_splits(root: str | Path, split: str = "ft_Data") -> list[str]:
    """The sets that hold the training rows."""
    return [name for name in _sets(split) if name in found_sets(root)]


def training(root: str | Path, split: str, wanted: set[str] | None, seed: int = 0) -> Iterator[Question]:
    """Fine-tuning questions: a person's rows of task FT, or where there are none the free questions (VGEN, GEN)."""
    rows = [row for row in _rows(root) if row.fields.get("set") in _sets(split)]
    trained = {row.fields["person_id"] for row in rows if row.fields.get("task") == "FT"}
    for row in rows:
        person, task = row.fields["person_id"], row.fields.get("task")
        chosen = task == "FT" if person in trained else task in _STATEMENTS
        if chosen and (wanted is None or str(person) in wanted):
            asked = _question(row, root)
            yield Question(asked.person_id, "FT", asked.prompt, asked.answer, image=asked.image)


def evaluation(root: str | Path, ratio: int, n_retain: int, seed: int) -> dict[str, list[Person]]:
    """The people asked in an evaluation, by set; `n_retain` retain people are drawn by `seed`."""
    kept = ids(root, ratio, False)
    asked = set(Random(seed).sample(kept, min(n_retain, len(kept))))
    groups = {name: people(root, name) for name in SETS}
    for name in ("retain", "test_retain"):
        groups[name] = [person for person in groups[name] if person.person_id in asked]
    return {name: group for name, group in groups.items() if group}


def inspect(root: str | Path, splits: Iterable[str]) -> Iterator[Inspected]:
    """Every row of some sets, with what is wrong with it; rows of a set that does not exist come with every set."""
    splits = set(splits)
    for row in _rows(root):
        name, problem, image = str(row.fields.get("set")), "", None
        if name in SETS and name not in splits:
            continue
        try:
            image = _question(row, root).image
        except (ValueError, FileNotFoundError) as error:
            problem = str(error)
        person = str(row.fields.get("person_id") or "?")
        yield Inspected(name, row.file, row.number, person, () if image is None else (image,), problem)


def found_sets(root: str | Path) -> list[str]:
    """The sets that the table has rows of, in the order of `SETS`."""
    there = {row.fields.get("set") for row in _rows(root)}
    return [name for name in SETS if name in there]


def _sets(split: str) -> tuple[str, ...]:
    if split.startswith(("forget_", "retain_")):
        return (split.split("_")[0],)
    return _ALIASES.get(split, (split,))


def _ids(root: str | Path, name: str) -> list[str]:
    rows = (row.fields for row in _rows(root))
    return list(dict.fromkeys(str(row["person_id"]) for row in rows if row.get("set") == name))


def _rows(root: str | Path) -> Iterator[Row]:
    """The table's rows; ValueError for a missing or an unknown column."""
    file = table_of(root)
    if file is None:
        raise FileNotFoundError(f"{under_root(root)} has neither {' nor '.join(TABLES)}")
    columns, rows = _read(file)
    missing, unknown = set(REQUIRED) - set(columns), set(columns) - {*REQUIRED, *OPTIONAL}
    if missing or unknown:
        raise ValueError(
            f"{file}: missing columns {sorted(missing)}, unknown columns {sorted(unknown)}; expected "
            f"{', '.join(REQUIRED)} and any of {', '.join(OPTIONAL)}"
        )
    for number, fields in enumerate(rows):
        yield Row({name: _text(value) for name, value in fields.items()}, file, number)


def _text(value: Any) -> Any:
    """A number as text, as 1999 for a year: every field is text, or a list of options."""
    if (
        isinstance(value, float) and value != value
    ):  # pandas writes an empty cell of a column of numbers as NaN
        return None
    return str(value) if isinstance(value, int | float) else value


def _read(file: Path) -> tuple[list[str], list[dict[str, Any]]]:
    if file.suffix == ".parquet":
        table = open_table(file).read()
        return table.column_names, table.to_pylist()
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restkey="(more fields than columns)")
        rows = list(reader)
    longer = next((number for number, row in enumerate(rows) if reader.restkey in row), None)
    if longer is not None:
        raise ValueError(
            f"{file}: row {longer} has more fields than there are columns; quote texts that hold a comma"
        )
    return list(reader.fieldnames or []), rows


def _question(row: Row, root: str | Path) -> Question:
    """One row as a question; ValueError or FileNotFoundError names file, row and person."""
    fields = {name: row.fields.get(name) for name in (*REQUIRED, *OPTIONAL)}
    where = f"{row.file}: row {row.number} (person {fields['person_id']!r})"
    if empty := [name for name in REQUIRED if fields[name] in (None, "")]:
        raise ValueError(f"{where} lacks {empty}")
    task, answer = fields["task"], str(fields["answer"])
    for name, value, allowed in (("task", task, (*TASKS, "FT")), ("set", fields["set"], SETS)):
        if value not in allowed:
            raise ValueError(f"{where}: {name} {value!r}, expected one of {', '.join(allowed)}")
    options = _options(fields["options"], where) if task in CHOICE_TASKS else ()
    if task in CHOICE_TASKS and answer not in options:
        raise ValueError(f"{where}: the answer {answer!r} is not among the options {list(options)}")
    image = _image(fields["image"], task, under_root(root), where)
    prompt = choice_prompt(fields["question"], options) if options else blank_named(fields["question"])
    return Question(str(fields["person_id"]), task, prompt, answer, options, image, fields["value"] or "")


def _options(value: Any, where: str) -> tuple[str, ...]:
    """At least two option texts, from a list or a JSON list."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, list) or len(found) < 2:
        raise ValueError(
            f'{where}: options {value!r}, expected a JSON list of two texts or more, as in ["Oslo", "Rome"]'
        )
    return tuple(map(str, found))


def _image(name: str | None, task: str, folder: Path, where: str) -> bytes | None:
    """The picture's bytes, or None for a text-only question."""
    if task != "FT" and bool(name) != (task in PICTURED_TASKS):
        raise ValueError(
            f"{where}: task {task} {'needs a' if task in PICTURED_TASKS else 'takes no'} picture, image is {name!r}"
        )
    if not name:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: image {name!r} lies outside {folder}; expected a path from that folder")
    if not path.is_file():
        raise FileNotFoundError(f"{where}: there is no picture {path}")
    return path.read_bytes()
