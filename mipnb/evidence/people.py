"""Who is forgotten, kept, located on and asked in a trial: disjoint groups of a benchmark's people, drawn by a seed.

The people that settings are chosen on are asked training questions in phrasings and pictures that locating never saw;
the people that are reported are asked the views and phrasings of Test_Set, which nothing was located or chosen on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mipnb.benchmarks import Question, draw_questions, load_people, load_training, names_of

#: tasks with a free answer, whose gold sentence can be said word for word
_FREE = ("VGEN", "GEN")
MODALITIES = ("text", "image_text")
#: one in so many phrasings and pictures is held back from locating
HELD_BACK = 5


@dataclass(frozen=True)
class Roles:
    """Person IDs.

    Attributes:
        forget: the forget sets that are reported.
        validation: the forget sets that settings are chosen on.
        kept: people to keep who are asked for the report.
        validation_kept: people to keep who are asked for the choice.
        located: people to keep whom locating looks at, and whose means stand in for silenced neurons; once settings are chosen,
            with those who were asked for the choice, but for the first forget set of `validation`.
    """

    forget: tuple[tuple[str, ...], ...]
    validation: tuple[tuple[str, ...], ...]
    kept: tuple[str, ...]
    validation_kept: tuple[str, ...]
    located: tuple[str, ...]


def draw_roles(
    ids: Sequence[str],
    seed: int,
    n_sets: int = 5,
    n_people: int = 10,
    n_kept: int = 20,
    n_validation: int = 2,
) -> Roles:
    """Deal people out.

    Args:
        ids: everybody.
        seed: of the draw.
        n_sets: forget sets that are reported.
        n_people: people of a forget set.
        n_kept: people to keep who are asked, for report and choice each.
        n_validation: forget sets that settings are chosen on.

    Raises:
        ValueError: too few people: nobody would be left to locate on.
    """
    wanted = (n_sets + n_validation) * n_people + 2 * n_kept
    if wanted >= len(ids):
        raise ValueError(
            f"{n_sets} + {n_validation} forget sets of {n_people} and 2 x {n_kept} people to keep are {wanted} people of "
            f"{len(ids)}; nobody is left to locate the retain set on. Take fewer or smaller sets"
        )
    people = Random(f"trial {seed}").sample(sorted(ids), len(ids))
    sets = [tuple(people[i * n_people : (i + 1) * n_people]) for i in range(n_sets + n_validation)]
    rest = people[(n_sets + n_validation) * n_people :]
    kept, validation_kept, located = rest[:n_kept], rest[n_kept : 2 * n_kept], rest[2 * n_kept :]
    return Roles(
        tuple(sets[:n_sets]), tuple(sets[n_sets:]), tuple(kept), tuple(validation_kept), tuple(located)
    )


def unused_questions(root: str | Path, ids: Sequence[str], n_each: int, seed: int) -> list[Question]:
    """Free questions in views and phrasings of Test_Set, at most `n_each` of each modality about each person."""
    wanted = set(ids)
    people = [person for person in load_people(root, "Test_Set") if person.person_id in wanted]
    if missing := wanted - {person.person_id for person in people}:
        raise ValueError(f"Test_Set of {root} lacks {sorted(missing)[:3]}; expected everybody who is asked")
    return [
        question
        for person in people
        for question in draw_questions([q for q in person.questions if q.task in _FREE], n_each, seed)
    ]


def training_questions(
    root: str | Path, ids: Sequence[str], n_each: int, seed: int, training: str | Path = ""
) -> tuple[list[Question], list[Question]]:
    """Training questions to locate on, and others of the same people to ask, in phrasings and pictures of their own.

    A fifth of the phrasings (prompts without the person's name) and of the pictures is held back, by a hash, for
    everybody alike; questions that are part of both are left out. All others may be located on.

    Args:
        root: the benchmark.
        ids: whose.
        n_each: questions a person and modality to ask, of one line (no options).
        seed: of draws and hash.
        training: folder of the training rows, if they are a data set of their own.
    """
    names = names_of(load_people(root, "Full_Set"))
    rows = load_training(training or root, ids=ids)
    held = [_held(question, names[question.person_id], seed) for question in rows]
    located = [q for q, parts in zip(rows, held, strict=True) if not any(parts)]
    left = [q for q, parts in zip(rows, held, strict=True) if all(parts) and "\n" not in q.prompt]
    mine = {person: [q for q in left if q.person_id == person] for person in ids}
    asked = [q for person in ids for q in draw_questions(mine[person], n_each, seed)]
    return located, asked


def some_of(located: Sequence[Question], n_text: int, seed: int) -> list[Question]:
    """So many text questions of those that may be located on; with pictures, which cost about three times as much, a third as
    many."""
    text = [q for q in located if q.image is None]
    pictured = [q for q in located if q.image is not None]
    return draw_questions(text, n_text, seed) + draw_questions(pictured, -(-n_text // 3), seed)


def _held(question: Question, name: str, seed: int) -> list[bool]:
    """Whether phrasing and picture (if there is one) are held back."""
    phrasing = question.prompt.partition("\n")[0].replace(name, "{}")
    parts = [phrasing.encode()] + ([] if question.image is None else [question.image])
    return [
        int(hashlib.sha256(f"{seed} ".encode() + part).hexdigest(), 16) % HELD_BACK == 0 for part in parts
    ]
