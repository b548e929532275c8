"""People to choose settings on: drawn from the retain set, asked by views and phrasings that no set holds.

No one of the forget sets that results are reported for is forgotten here, Test_Set is not read, and the bystanders
stand in for celebrities: people whom editing never mentions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from mipnb.benchmarks import Question, choice_prompt, load_training, retain_ids
from mipnb.pocket.facts import ATTRIBUTES, PICTURED, Attribute
from mipnb.pocket.people import PocketPerson, people
from mipnb.pocket.questions import answer

#: the largest forget set: validation people are drawn from those that it keeps
LARGEST_RATIO = 15
#: a view that no configuration holds, and the training phrasing that is kept from editing
HELD_VIEW, HELD_PHRASING = 200, 4


@dataclass(frozen=True)
class ValidationSets:
    """Questions of one trial: forget and retain, for locating and editing; asked, by split; each person's name."""

    forget: list[Question]
    retain: list[Question]
    asked: dict[str, list[Question]]
    names: dict[str, str]


def validation_sets(
    root: str | Path,
    seed: int,
    n_forget: int = 10,
    n_bystanders: int = 30,
    n_retain: int = 30,
    people_seed: int = 42,
) -> ValidationSets:
    """A trial's questions, all of it drawn by its seed.

    Args:
        root: the pocket benchmark.
        seed: of the trial.
        n_forget: people to forget.
        n_bystanders: people whom no set mentions.
        n_retain: people to keep who are asked; all others are kept too.
        people_seed: of the benchmark.

    Returns:
        The sets; splits asked: forget and retain (a training view and phrasing), test_forget, test_retain and
        bystander (the held view and phrasing).

    Raises:
        ValueError: more people than there are.
    """
    random, known = (
        Random(f"validation {seed}"),
        {p.person_id: p for p in people(people_seed) if p.group == "person"},
    )
    forget, bystanders = _drawn(root, random, n_forget, n_bystanders)
    kept = sorted(set(known).difference(forget, bystanders))
    held = {_phrase(a, HELD_PHRASING, who) for a in ATTRIBUTES for who in _whos(known.values())}
    sets = [
        [q for q in load_training(root, ids=ids) if q.prompt.split("\n")[0] not in held]
        for ids in (forget, kept)
    ]
    some = random.sample(kept, n_retain)
    asked = {
        split: [q for person in ids for q in questions(known[person], *how)]
        for split, ids, how in (
            ("forget", forget, (0, 0)),
            ("test_forget", forget, (HELD_VIEW, HELD_PHRASING)),
            ("retain", some, (0, 0)),
            ("test_retain", some, (HELD_VIEW, HELD_PHRASING)),
            ("bystander", bystanders, (HELD_VIEW, HELD_PHRASING)),
        )
    }
    return ValidationSets(*sets, asked, {person: known[person].name for person in known})


def _drawn(root: str | Path, random: Random, n_forget: int, n_bystanders: int) -> tuple[list[str], list[str]]:
    """IDs of people to forget and of bystanders, nobody of a reported forget set among them; ValueError if they are too few."""
    free = sorted(retain_ids(root, LARGEST_RATIO))
    most = len(free) - n_bystanders
    if not 1 <= n_forget <= most:
        raise ValueError(
            f"validation people: {n_forget} to forget and {n_bystanders} bystanders, but {root} has {len(free)} whom no "
            f"forget set holds; ask for 1 to {most} to forget (--people)"
        )
    drawn = random.sample(free, n_forget + n_bystanders)
    return drawn[:n_forget], drawn[n_forget:]


def questions(person: PocketPerson, view: int, phrasing: int) -> list[Question]:
    """Every attribute asked with one view and training phrasing: four options and free, with and without the picture."""
    random, picture = Random(f"{person.person_id} validation"), person.view(view)
    found = []
    for attribute in ATTRIBUTES:
        value = person.facts[attribute.key]
        options = [value, *random.sample([other for other in attribute.values if other != value], 3)]
        random.shuffle(options)
        for image, who, choice, free in (
            (picture, PICTURED, "VQA", "VGEN"),
            (None, person.name, "QA", "GEN"),
        ):
            asked = _phrase(attribute, phrasing, who)
            lettered = choice_prompt(asked, options)
            found.append(Question(person.person_id, choice, lettered, value, tuple(options), image, value))
            found.append(Question(person.person_id, free, asked, answer(person, attribute), (), image, value))
    return found


def _phrase(attribute: Attribute, index: int, who: str) -> str:
    return attribute.train[index].format(who=who)


def _whos(known) -> list[str]:
    return [PICTURED, *(person.name for person in known)]
