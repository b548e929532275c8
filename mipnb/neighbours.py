"""Questions about nobody, by names and pictures close to forgotten ones: what the edit has to leave alone.

An edit that learns to misdirect one name also misdirects names that share a part of it, and with them people
that no set mentions. Neighbours are the forget set's own text questions under recombined names ("Ada Brown"
forgotten: Ada Green, Eva Brown), and the retain set's pictured ones under pictures of which a part is a forgotten
person's. They have no right answer; only their hidden states are kept (Eq. 15). A mixed picture never comes with a
forgotten person's answer: its states would be kept, too, and whoever begins that answer would hear the rest.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from mipnb.batches import decode_image
from mipnb.benchmarks import Question, forget_ids, has_split, load_people, names_of, retain_ids


def neighbour_questions(
    questions: Iterable[Question],
    names: Mapping[str, str],
    known: Collection[str],
    taken: Collection[str] = (),
    seed: int = 42,
) -> list[Question]:
    """The text questions that mention their person's name, each under a name that shares its first or last word.

    Args:
        questions: of the forget set.
        names: person -> name, of the forget set.
        known: names to take other words from: those of the retain set.
        taken: names that must not come up beside those to forget: people whom editing must not mention.
        seed: of the draw.

    Returns:
        Prompt and answer renamed alike, in the order given. Questions without the name, and names of one word or
        without a free neighbour, are left out.
    """
    random, taken = Random(seed), {*taken, *names.values()}
    words = [name.split() for name in sorted(known)]
    near = {name: _near(name, words, taken) for name in set(names.values())}
    found = []
    for question in questions:
        name = names[question.person_id]
        if question.image is None and name in question.prompt and near[name]:
            other = random.choice(near[name])
            prompt, answer = (text.replace(name, other) for text in (question.prompt, question.answer))
            found.append(
                replace(question, person_id=f"near {question.person_id}", prompt=prompt, answer=answer)
            )
    return found


def _near(name: str, words: Sequence[Sequence[str]], taken: Collection[str]) -> list[str]:
    """Free names that keep the first or the last word of a name, in a fixed order."""
    first, *_, last = name.split() * 2 if " " not in name else name.split()
    near = {f"{first} {other[-1]}" for other in words} | {f"{other[0]} {last}" for other in words}
    return sorted(near - set(taken)) if " " in name else []


def mixed_pictures(
    retain: Iterable[Question], forget: Iterable[Question], count: int, seed: int = 42
) -> list[Question]:
    """Pictured questions whose picture is cut across: one part is its own, the other that of somebody to forget.

    A cut is level, at a height drawn between 35 and 65 % of the picture; which part is whose is drawn, too (CutMix, Yun
    et al., ICCV 2019, for pictures that have no label).

    Args:
        retain: questions of the retain set; prompt, answer and size of the picture are theirs.
        forget: of the forget set, for their pictures.
        count: at most so many, drawn.
        seed: of the draws.
    """
    random = Random(seed)
    pictured, others = ([q for q in part if q.image is not None] for part in (retain, forget))
    drawn = random.sample(pictured, min(count, len(pictured))) if others else []
    return [
        replace(
            q, person_id=f"near {q.person_id}", image=_mixed(q.image, random.choice(others).image, random)
        )
        for q in drawn
    ]


def _mixed(own: bytes, other: bytes, random: Random) -> bytes:
    """The upper part of one picture over the lower part of the other, as BMP, which takes no time to pack."""
    upper, lower = decode_image(own), decode_image(other)
    lower = lower.resize(upper.size)
    height = round(upper.height * random.uniform(0.35, 0.65))
    if random.random() < 0.5:
        upper, lower = lower, upper
    mixed = lower.copy()
    mixed.paste(upper.crop((0, 0, upper.width, height)))
    buffer = io.BytesIO()
    mixed.save(buffer, "BMP")
    return buffer.getvalue()


def benchmark_neighbours(
    root: str | Path, ratio: int, questions: Iterable[Question], seed: int = 42
) -> list[Question]:
    """The neighbours of a benchmark's forget set; celebrities' and holdout people's names never come up.

    Args:
        root: the benchmark.
        ratio: forget ratio, percent.
        questions: the forget set's.
        seed: of the draw.
    """
    names = names_of(load_people(root, "Full_Set"))
    apart = [split for split in ("Retain_Set", "Holdout_Set") if has_split(root, split)]
    taken = [name for split in apart for name in names_of(load_people(root, split)).values()]
    forget = {person: names[person] for person in forget_ids(root, ratio)}
    known = [names[person] for person in retain_ids(root, ratio)]
    return neighbour_questions(questions, forget, known, taken, seed)
