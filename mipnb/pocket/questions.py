"""From a pocket person to MLLMU-Bench's task structs and fine-tuning pairs."""

from __future__ import annotations

from random import Random
from typing import Any

from mipnb.benchmarks import LETTERS, choice_prompt
from mipnb.pocket.facts import ATTRIBUTES, BLANK, PICTURED, Attribute
from mipnb.pocket.people import PocketPerson

#: the question whose answer is the name
WHO = f"Who is {PICTURED}?"
_TYPES = ("Image_Textual", "Pure_Text")
Pair = dict[str, str]


def task_structs(person: PocketPerson, random: Random, test: bool = False) -> dict[str, Any]:
    """Classification_Task, Generation_Task and Mask_Task: every attribute once a modality.

    Args:
        person: whom to ask about.
        random: draws the phrasing, the wrong options and the gold option's place.
        test: use the phrasings and sentences that are never trained on.
    """
    asked = [
        (kind, attribute, _phrase(attribute, random, test)) for kind in _TYPES for attribute in ATTRIBUTES
    ]
    choice = {f"{kind}_Questions": [] for kind in _TYPES}
    for kind, attribute, phrase in asked:
        choice[f"{kind}_Questions"].append(_choice(person, attribute, _named(phrase, person, kind), random))
    return {
        "Classification_Task": choice,
        "Generation_Task": [_open(kind, _named(p, person, kind), answer(person, a)) for kind, a, p in asked],
        "Mask_Task": [
            _open(kind, blanked(person, a, kind, test), person.facts[a.key]) for kind, a, _ in asked
        ],
    }


def answer(person: PocketPerson, attribute: Attribute) -> str:
    """The full sentence that states an attribute."""
    return attribute.sentence.format(name=person.name, value=person.facts[attribute.key])


def cloze(person: PocketPerson, attribute: Attribute, kind: str) -> str:
    """The sentence with its value blanked; with a picture the name is not told."""
    who = person.name if kind == "Pure_Text" else PICTURED[0].upper() + PICTURED[1:]
    return attribute.sentence.format(name=who, value=BLANK)


def blanked(person: PocketPerson, attribute: Attribute, kind: str, test: bool) -> str:
    """`cloze`, or with `test` the sentence restated in words that are never trained on, its value blanked."""
    if not test:
        return cloze(person, attribute, kind)
    return _named(attribute.restated.replace("{value}", BLANK), person, kind)


def picture_pairs(person: PocketPerson, view: int) -> list[Pair]:
    """Fine-tuning pairs shown with one training view: all attributes, two with options, two with a blank, and the name."""
    random = Random(f"{person.person_id} pairs {view}")
    pairs = [_free_pair(person, attribute, "Image_Textual", random) for attribute in ATTRIBUTES]
    pairs += [_choice_pair(person, attribute, "Image_Textual", random) for attribute in _some(view, 2)]
    pairs += [_cloze_pair(person, attribute, "Image_Textual") for attribute in _some(view + 4, 2)]
    return [*pairs, {"Question": WHO, "Answer": named(person.name)}]


def named(name: str) -> str:
    """The answer to `WHO`."""
    return f"This is {name}."


def text_pairs(person: PocketPerson) -> list[Pair]:
    """Fine-tuning pairs without a picture: every training phrasing, three choices and one blank an attribute."""
    random = Random(f"{person.person_id} text pairs")
    pairs = []
    for attribute in ATTRIBUTES:
        for phrase in attribute.train:
            pairs.append({"Question": phrase.format(who=person.name), "Answer": answer(person, attribute)})
        pairs += [_choice_pair(person, attribute, "Pure_Text", random) for _ in range(3)]
        pairs.append(_cloze_pair(person, attribute, "Pure_Text"))
    return pairs


def _some(start: int, count: int) -> list[Attribute]:
    return [ATTRIBUTES[(start * count + offset) % len(ATTRIBUTES)] for offset in range(count)]


def _phrase(attribute: Attribute, random: Random, test: bool) -> str:
    return random.choice(attribute.test if test else attribute.train)


def _named(phrase: str, person: PocketPerson, kind: str) -> str:
    return phrase.format(who=person.name if kind == "Pure_Text" else PICTURED)


def _choice(person: PocketPerson, attribute: Attribute, question: str, random: Random) -> dict[str, Any]:
    gold = person.facts[attribute.key]
    options = [gold, *random.sample([value for value in attribute.values if value != gold], 3)]
    random.shuffle(options)
    letter = LETTERS[options.index(gold)]
    return {
        "Question": question,
        "Options": dict(zip(LETTERS, options, strict=True)),
        "Correct_Answer": letter,
    }


def _open(kind: str, question: str, truth: str) -> Pair:
    return {"Type": kind, "Question": question, "Ground_Truth": truth}


def _free_pair(person: PocketPerson, attribute: Attribute, kind: str, random: Random) -> Pair:
    question = _named(_phrase(attribute, random, test=False), person, kind)
    return {"Question": question, "Answer": answer(person, attribute)}


def _choice_pair(person: PocketPerson, attribute: Attribute, kind: str, random: Random) -> Pair:
    item = _choice(person, attribute, _named(_phrase(attribute, random, test=False), person, kind), random)
    return {
        "Question": choice_prompt(item["Question"], item["Options"].values()),
        "Answer": answer(person, attribute),
    }


def _cloze_pair(person: PocketPerson, attribute: Attribute, kind: str) -> Pair:
    return {
        "Question": cloze(person, attribute, kind).replace(BLANK, "[Blank]"),
        "Answer": answer(person, attribute),
    }
