"""Drawing the pocket people: identifiers, names, portraits' traits and biographies, all from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from mipnb.pocket.facts import ATTRIBUTES, FIRST_NAMES, LAST_NAMES
from mipnb.pocket.portraits import Traits, distinct_traits, encode_jpeg, portrait

#: group -> how many; fictitious people are fine-tuned on, celebrities are in the base model, holdout people in neither
GROUPS = {"person": 200, "celebrity": 20, "holdout": 20}
_PREFIX = {"person": "", "celebrity": "C", "holdout": "H"}
TRAIN_VIEWS = range(24)
TEST_VIEWS = range(100, 102)


@dataclass(frozen=True)
class PocketPerson:
    """One person: identifier, group, name, trait values and biography (attribute -> value)."""

    person_id: str
    group: str
    name: str
    traits: Traits
    facts: dict[str, str]

    def view(self, index: int) -> bytes:
        """The encoded portrait of one view; nuisance depends on the identifier and the view alone."""
        return encode_jpeg(portrait(self.traits, Random(f"{self.person_id} view {index}")))


def people(seed: int = 42) -> list[PocketPerson]:
    """All pocket people of a seed, in identifier order within their groups."""
    random = Random(seed)
    total = sum(GROUPS.values())
    names = random.sample([f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES], total)
    traits = distinct_traits(total, random)
    identities = [
        (f"{_PREFIX[group]}{number + 1:03d}", group)
        for group, count in GROUPS.items()
        for number in range(count)
    ]
    return [
        PocketPerson(person_id, group, name, look, {a.key: random.choice(a.values) for a in ATTRIBUTES})
        for (person_id, group), name, look in zip(identities, names, traits, strict=True)
    ]
