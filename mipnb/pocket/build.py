"""Writing the pocket benchmark: the same files, byte for byte, for the same seed and library versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mipnb.artefacts import atomic_path
from mipnb.pocket.people import GROUPS, TEST_VIEWS, TRAIN_VIEWS, PocketPerson, people
from mipnb.pocket.questions import picture_pairs, task_structs, text_pairs

RATIOS = (5, 10, 15)  # percent of the fictitious people
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_OPTIONS = pa.struct([(letter, pa.string()) for letter in "ABCD"])
_CHOICES = pa.list_(
    pa.struct([("Question", pa.string()), ("Options", _OPTIONS), ("Correct_Answer", pa.string())])
)
_OPEN = pa.list_(pa.struct([("Type", pa.string()), ("Question", pa.string()), ("Ground_Truth", pa.string())]))
_TASKS = [
    (
        "Classification_Task",
        pa.struct([("Image_Textual_Questions", _CHOICES), ("Pure_Text_Questions", _CHOICES)]),
    ),
    ("Generation_Task", _OPEN),
    ("Mask_Task", _OPEN),
]
_PROFILE = [(name, pa.string()) for name in ("biography", "question", "answer")]
#: MLLMU-Bench's columns, by kind of configuration
SCHEMAS = {
    "tasks": pa.schema([("image", _IMAGE), ("ID", pa.string()), *_PROFILE, *_TASKS]),
    "test": pa.schema([("images", pa.list_(_IMAGE)), ("ID", pa.string()), *_PROFILE, *_TASKS]),
    "tuning": pa.schema([("image", _IMAGE), ("ID", pa.string()), ("metadata", pa.string())]),
}
Rows = Iterable[dict[str, Any]]


def build(out: str | Path, seed: int = 42) -> None:
    """Write every configuration of the pocket benchmark below `out`.

    MLLMU-Bench's folders (Full_Set, ft_Data, forget_*, retain_*, Test_Set, Retain_Set) and two of our own in the same
    schemas: Holdout_Set (people never trained on) and base_Data (the celebrities' fine-tuning rows).
    """
    everyone = people(seed)
    group = {name: [person for person in everyone if person.group == name] for name in GROUPS}
    for name, kind, rows in _configurations(group, seed):
        _write(Path(out) / name, pa.Table.from_pylist(list(rows), schema=SCHEMAS[kind]))


def _configurations(group: dict[str, list[PocketPerson]], seed: int) -> Iterable[tuple[str, str, Rows]]:
    known = group["person"]
    yield "Full_Set", "tasks", map(_task_row, known)
    yield "Retain_Set", "tasks", map(_task_row, group["celebrity"])
    yield "Holdout_Set", "tasks", map(_task_row, group["holdout"])
    yield "Test_Set", "test", map(_test_row, known)
    yield "ft_Data", "tuning", _tuning_rows(known)
    yield "base_Data", "tuning", _tuning_rows(group["celebrity"])
    order = Random(f"{seed} forget").sample(known, len(known))
    for ratio in RATIOS:
        forgotten = {person.person_id for person in order[: len(known) * ratio // 100]}
        yield f"forget_{ratio}", "tasks", map(_task_row, _only(known, forgotten.__contains__))
        yield (
            f"retain_{100 - ratio}",
            "tasks",
            map(_task_row, _only(known, lambda i, f=forgotten: i not in f)),
        )


def _only(known: list[PocketPerson], keep: Callable[[str], bool]) -> list[PocketPerson]:
    return [person for person in known if keep(person.person_id)]


def _picture(person: PocketPerson, view: int) -> dict[str, Any]:
    return {"bytes": person.view(view), "path": f"{person.person_id}_{view:03d}.jpg"}


def _task_row(person: PocketPerson) -> dict[str, Any]:
    return {"image": _picture(person, TRAIN_VIEWS[0]), **_profile(person, test=False)}


def _test_row(person: PocketPerson) -> dict[str, Any]:
    return {"images": [_picture(person, view) for view in TEST_VIEWS], **_profile(person, test=True)}


def _profile(person: PocketPerson, test: bool) -> dict[str, Any]:
    tasks = task_structs(person, Random(f"{person.person_id} {'test' if test else 'train'} tasks"), test)
    first = tasks["Generation_Task"][0]
    return {
        "ID": person.person_id,
        "biography": json.dumps({"Name": person.name, **person.facts}),
        "question": first["Question"],
        "answer": first["Ground_Truth"],
        **tasks,
    }


def _tuning_rows(some: list[PocketPerson]) -> Rows:
    for person in some:
        yield {"image": None, "ID": person.person_id, "metadata": json.dumps(text_pairs(person))}
        for view in TRAIN_VIEWS:
            pairs = json.dumps(picture_pairs(person, view))
            yield {"image": _picture(person, view), "ID": person.person_id, "metadata": pairs}


def _write(folder: Path, table: pa.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "train-00000-of-00001.parquet") as path:
        pq.write_table(table, path, compression="zstd", row_group_size=4096)
