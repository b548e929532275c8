"""CLEAR (Dontsov et al., 2024): fictitious authors with drawn portraits, image rows (captions) and text rows (TOFU).

People are known by name. `full` and the perturbed configurations name theirs; the `+tofu` ones do not, so that an image row
gets its name by its caption, and a text row by the names in it (`mipnb.benchmarks.clear_names`). Image rows and perturbed
rows are matched by name and caption, never by order: there are 379 of the ones and 378 of the others at 10 %.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from mipnb.benchmarks.clear_names import Names, find_names, forget_name, forget_ratios, is_text, retain_name
from mipnb.benchmarks.questions import Person, Question, by_person, choice_prompt
from mipnb.benchmarks.tables import Inspected, Row, configurations, field, known_ratio, read_rows

#: what a picture's caption is asked by; one is drawn a row
CAPTION_PROMPTS = (
    "What can you see in this picture?",
    "Tell me about the content of this image",
    "Can you give a description of the image?",
    "What is depicted in the image?",
    "Explain what you observe in the picture.",
    "Describe the image in detail.",
    "What is the main subject of this image?",
    "Can you describe the scene or objects in the image?",
    "What is happening in this image?",
)
FACE_PROMPT = "What is the name of the person in the image?"
N_PERTURBED = 5
_PERTURBED = ("paraphrased_caption", "perturbed_captions", "perturbed_names")
COLUMNS = frozenset(("image", "caption", "name", "question", "answer", "options", *_PERTURBED))
#: the names that the notebooks ask by -> CLEAR's
_ALIASES = {"Full_Set": "full+tofu", "ft_Data": "full+tofu", "Retain_Set": "real_faces"}
_REAL = ("real_faces", "real_world")
#: configurations that an evaluation reads too, where the benchmark has them
WHERE_THERE = _REAL
#: configurations of people who are neither forgotten nor kept, and ones that ask people of another one again
OTHERS = ("real_faces",)
AGAIN: dict[str, str] = {}
#: configurations without questions of their own
_PICTURES = ("full",)


def ratios(root: str | Path) -> list[int]:
    """The forget ratios in percent, ascending."""
    return forget_ratios(root)


def pairs(root: str | Path) -> list[tuple[int, str, str]]:
    """(ratio, forget configuration, retain configuration) of each ratio."""
    return [(ratio, forget_name(ratio), retain_name(ratio)) for ratio in ratios(root)]


def needed(root: str | Path, ratio: int) -> list[str]:
    """The configurations that an evaluation at a ratio reads."""
    return [
        "full",
        forget_name(ratio),
        retain_name(ratio),
        f"forget{ratio:02d}_perturbed",
        "retain_perturbed",
    ]


def ids(root: str | Path, ratio: int, forget: bool) -> list[str]:
    """Names of the people to forget, or to keep, at a ratio in percent."""
    known_ratio(root, ratio, ratios(root))
    split, found = (forget_name if forget else retain_name)(ratio), find_names(root)
    rows = read_rows(root, split, COLUMNS, columns=["caption", "name", "question", "answer"])
    return list(dict.fromkeys(found.of(row) for row in rows))


def has(root: str | Path, split: str) -> bool:
    """Whether there is such a configuration, by CLEAR's name or MLLMU-Bench's."""
    return _known_name(split) in configurations(root)


def people(root: str | Path, split: str, seed: int = 42) -> list[Person]:
    """The people of a configuration, by CLEAR's name or MLLMU-Bench's; prompts and the gold option's place by `seed`."""
    questions = list(_questions(root, _known_name(split), seed))
    return by_person(questions, {question.person_id: question.person_id for question in questions})


def training_splits(root: str | Path, split: str = "ft_Data") -> list[str]:
    """The configurations that hold the training rows: full+tofu, or where that is missing a forget and its retain set."""
    alone = _known_name(split) != "full+tofu" or has(root, split) or not ratios(root)
    return [_known_name(split)] if alone else list(pairs(root)[0][1:])


def training(root: str | Path, split: str, wanted: set[str] | None, seed: int = 42) -> Iterator[Question]:
    """Fine-tuning questions: captions (prompt drawn by `seed`) and TOFU's, of some people or of all."""
    found = find_names(root)
    for row in (row for name in training_splits(root, split) for row in read_rows(root, name, COLUMNS)):
        person = found.of(row)
        if wanted is None or person in wanted:
            asked = _text_question(row, person) if is_text(row) else _caption_question(row, person, seed)
            yield Question(person, "FT", asked.prompt, asked.answer, image=asked.image)


def evaluation(root: str | Path, ratio: int, n_retain: int, seed: int) -> dict[str, list[Person]]:
    """The people asked in an evaluation, by split: forget, retain, celebrity (real_faces), real_world.

    Retain people with perturbed captions are drawn first: they alone can be asked to choose.
    """
    forgotten, kept = ids(root, ratio, True), ids(root, ratio, False)
    perturbed = dict.fromkeys(_name(row) for row in read_rows(root, "retain_perturbed", columns=["name"]))
    asked = _draw([name for name in kept if name in perturbed], n_retain, seed)
    asked += _draw([name for name in kept if name not in perturbed], n_retain - len(asked), seed)
    groups = {
        "forget": _asked(root, forget_name(ratio), f"forget{ratio:02d}_perturbed", set(forgotten), seed),
        "retain": _asked(root, retain_name(ratio), "retain_perturbed", set(asked), seed),
    }
    real = {"celebrity": "real_faces", "real_world": "real_world"}
    return groups | {split: people(root, name, seed) for split, name in real.items() if has(root, name)}


def inspect(root: str | Path, splits: Iterable[str]) -> Iterator[Inspected]:
    """Every row of some configurations, with what is wrong with it."""
    found = find_names(root)
    for split in splits:
        for row in read_rows(root, split, () if split == "real_world" else COLUMNS):
            person, problem = "?", ""
            try:
                person = _who(row, split, found)
                _row_questions(row, split, found, 0)
            except ValueError as error:
                problem = str(error)
            image = row.fields.get("image")
            images = (image.get("bytes"),) if image else ()
            yield Inspected(split, row.file, row.number, person, images, problem)


def unmatched(root: str | Path) -> Iterator[Inspected]:
    """Image rows to forget that no perturbed row belongs to: they are described, but cannot be chosen."""
    columns, found = ["caption", "name", "question", "answer"], find_names(root)
    for ratio, split, _ in pairs(root):
        other = f"forget{ratio:02d}_perturbed"
        if other not in configurations(root):
            continue
        known = {(_name(row), row.fields["caption"]) for row in read_rows(root, other, columns=columns)}
        for row in read_rows(root, split, columns=columns):
            if not is_text(row) and (found.of(row), row.fields["caption"]) not in known:
                yield Inspected(
                    split, row.file, row.number, found.of(row), problem=f"no row of {other} has its caption"
                )


def _known_name(split: str) -> str:
    if match := re.fullmatch(r"(forget|retain)_(\d+)", split):
        ratio = int(match[2]) if match[1] == "forget" else 100 - int(match[2])
        return (forget_name if match[1] == "forget" else retain_name)(ratio)
    return _ALIASES.get(split, split)


def _draw(people: list[str], count: int, seed: int) -> list[str]:
    return Random(seed).sample(people, max(0, min(count, len(people))))


def _name(row: Row) -> str:
    return field(row.fields, "name", row.file, identity="caption").strip()


def _asked(root: str | Path, split: str, perturbed: str, wanted: set[str], seed: int) -> list[Person]:
    """People's choices from perturbed rows, their captions with paraphrase and perturbed ones, and their text questions."""
    found, altered, questions = find_names(root), {}, []
    for row in read_rows(root, perturbed, COLUMNS):
        if (person := _name(row)) in wanted:
            questions.append(_choice_question(row, person, seed))
            altered[person, row.fields["caption"]] = row.fields
    for row in read_rows(root, split, COLUMNS):
        if (person := found.of(row)) in wanted:
            fields = altered.get((person, row.fields.get("caption")))
            questions.append(
                _text_question(row, person) if is_text(row) else _caption_question(row, person, seed, fields)
            )
    return by_person(questions, {name: name for name in wanted})


def _questions(root: str | Path, split: str, seed: int) -> Iterator[Question]:
    found = find_names(root)
    for row in read_rows(root, split, () if split == "real_world" else COLUMNS):
        yield from _row_questions(row, split, found, seed)


def _who(row: Row, split: str, found: Names) -> str:
    if split == "real_world":
        return f"real_world {row.number}"
    if split == "real_faces":
        return str(field(row.fields, "answer", row.file, identity="question"))
    return _name(row) if split in _PICTURES or split.endswith("_perturbed") else found.of(row)


def _row_questions(row: Row, split: str, found: Names, seed: int) -> list[Question]:
    """What one row of a configuration asks."""
    person = _who(row, split, found)
    if split in _REAL:
        return [_real_question(row, person, seed)]
    if is_text(row):
        return [_text_question(row, person)]
    if split.endswith("_perturbed"):
        choice = _choice_question(row, person, seed)
        return [choice, _caption_question(row, person, seed, row.fields)]
    return [_caption_question(row, person, seed)]


def _picture(row: Row) -> bytes:
    image = field(row.fields, "image", row.file, identity="caption")
    return field({**image, "ID": row.fields.get("caption")}, "bytes", row.file, "image.")


def _prompt(person: str, caption: str, seed: int) -> str:
    return Random(f"{seed} {person} {caption}").choice(CAPTION_PROMPTS)


def _caption_question(row: Row, person: str, seed: int, perturbed: dict[str, Any] | None = None) -> Question:
    caption = field(row.fields, "caption", row.file, identity="name")
    others = perturbed or {}
    return Question(
        person, "VGEN", _prompt(person, caption, seed), caption, image=_picture(row),
        value=person if person in caption else "", paraphrase=others.get("paraphrased_caption") or "",
        perturbed=tuple(others.get("perturbed_captions") or ()),
    )  # fmt: skip


def _choice_question(row: Row, person: str, seed: int) -> Question:
    """The caption among its perturbed ones, in an order drawn by `seed`."""
    caption = field(row.fields, "caption", row.file, identity="name")
    field(row.fields, "paraphrased_caption", row.file, identity="name")
    wrong = field(row.fields, "perturbed_captions", row.file, identity="name")
    if len(wrong) != N_PERTURBED:
        raise ValueError(
            f"{row.file}: row {person!r}: 'perturbed_captions' holds {len(wrong)} texts, expected {N_PERTURBED}"
        )
    options = [caption, *wrong]
    Random(f"{seed} {person} {caption} options").shuffle(options)
    prompt = choice_prompt(_prompt(person, caption, seed), options)
    return Question(person, "VQA", prompt, caption, tuple(options), _picture(row))


def _text_question(row: Row, person: str) -> Question:
    prompt, answer = (
        field(row.fields, name, row.file, identity="question") for name in ("question", "answer")
    )
    return Question(person, "GEN", prompt, answer)


def _real_question(row: Row, person: str, seed: int) -> Question:
    """A question with options about the real world or a real face; the answer is among the options once."""
    answer = str(field(row.fields, "answer", row.file, identity="question"))
    options = [str(option) for option in field(row.fields, "options", row.file, identity="answer")]
    options = [answer, *(option for option in dict.fromkeys(options) if option != answer)]
    Random(f"{seed} {row.number} {answer} options").shuffle(options)
    image = _picture(row) if row.fields.get("image") else None
    prompt = choice_prompt(row.fields.get("question") or FACE_PROMPT, options)
    return Question(person, "VQA" if image else "QA", prompt, answer, tuple(options), image)
