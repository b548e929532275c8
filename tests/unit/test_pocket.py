"""The pocket benchmark: no answer without knowing the person, portraits told apart by shape alone, files that repeat."""

import json
from collections import Counter
from itertools import combinations
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest

from mipnb.artefacts import project_root
from mipnb.benchmarks import load_people, load_training
from mipnb.pocket.build import RATIOS, SCHEMAS
from mipnb.pocket.facts import ATTRIBUTES
from mipnb.pocket.people import GROUPS, TEST_VIEWS, TRAIN_VIEWS, people
from mipnb.pocket.portraits import TRAITS, portrait
from mipnb.pocket.questions import task_structs

POCKET = project_root() / "data" / "pocket"


@pytest.fixture(scope="module")
def everyone():
    return people(42)


def test_groups_have_their_sizes_and_names_are_unique(everyone):
    assert (
        Counter(person.group for person in everyone)
        == GROUPS
        == {"person": 200, "celebrity": 20, "holdout": 20}
    )
    assert len({person.name for person in everyone}) == 240


def test_no_attribute_tells_another(everyone):
    """Knowing one attribute's value, the best guess of another is right for few people more than the best blind guess."""
    for known, asked in combinations([a.key for a in ATTRIBUTES], 2):
        pairs = Counter((p.facts[known], p.facts[asked]) for p in everyone)
        best = Counter()
        for (given, _), count in pairs.items():
            best[given] = max(best[given], count)
        assert sum(best.values()) / len(everyone) < 0.35, (known, asked)


def test_first_and_last_names_are_shared(everyone):
    for part in (0, 1):
        counts = Counter(person.name.split()[part] for person in everyone)
        assert len(counts) <= 40
        assert max(counts.values()) > 3


def test_any_two_people_differ_in_three_traits_and_share_every_value(everyone):
    looks = np.array([person.traits for person in everyone])
    apart = (looks[:, None] != looks[None]).sum(-1)[np.triu_indices(len(looks), 1)]
    assert apart.min() >= 3
    for column, values in zip(looks.T, TRAITS.values(), strict=True):
        assert set(Counter(column.tolist())) == set(range(len(values)))


def test_colour_tells_nobody(everyone):
    """Two views of one person are no closer in mean colour than views of two people."""

    def colour(person, view):
        return np.asarray(portrait(person.traits, Random(f"{person.person_id} view {view}"))).mean((0, 1))

    first, second = (np.array([colour(p, view) for p in everyone[:80]]) for view in (0, 1))
    distance = np.linalg.norm(first[:, None] - second[None], axis=-1)
    own = np.diag(distance).mean()
    assert 0.85 < own / distance.mean() < 1.15


def test_views_differ_and_repeat(everyone):
    person = everyone[0]
    assert person.view(3) == people(42)[0].view(3)
    assert len({person.view(view) for view in (*TRAIN_VIEWS, *TEST_VIEWS)}) == len(TRAIN_VIEWS) + len(
        TEST_VIEWS
    )


def test_another_seed_makes_other_people(everyone):
    assert [p.name for p in people(7)] != [p.name for p in everyone]


def test_gold_option_moves_and_stands_once(everyone):
    letters = Counter()
    for person in everyone[:60]:
        for items in task_structs(person, Random(person.person_id))["Classification_Task"].values():
            for item in items:
                letters[item["Correct_Answer"]] += 1
                assert len(set(item["Options"].values())) == 4
                assert item["Options"][item["Correct_Answer"]] in person.facts.values()
    assert min(letters.values()) > 0.8 * sum(letters.values()) / 4


def test_shipped_schema_is_mllmu_bench():
    expected = {"Full_Set", "ft_Data", "Test_Set", "Retain_Set", *(f"forget_{r}" for r in RATIOS)}
    expected |= {f"retain_{100 - ratio}" for ratio in RATIOS}
    found = {path.parent.name: pq.read_schema(path) for path in POCKET.glob("*/*.parquet")}
    assert expected | {"Holdout_Set", "base_Data"} == set(found)
    for name, schema in found.items():
        kind = "test" if name == "Test_Set" else "tuning" if name in ("ft_Data", "base_Data") else "tasks"
        assert schema.equals(SCHEMAS[kind])


@pytest.mark.parametrize("ratio", RATIOS)
def test_forget_and_retain_part_the_people(ratio):
    forget, retain = (
        {p.person_id for p in load_people(POCKET, s)} for s in (f"forget_{ratio}", f"retain_{100 - ratio}")
    )
    assert len(forget) == 2 * ratio
    assert not forget & retain
    assert forget | retain == {p.person_id for p in load_people(POCKET, "Full_Set")}


def test_test_set_shares_no_picture_and_no_phrasing_with_training():
    trained = load_training(POCKET)
    seen_images, seen_prompts = {q.image for q in trained}, {q.prompt.split("\n")[0] for q in trained}
    test = [q for p in load_people(POCKET, "Test_Set") for q in p.questions]
    assert not seen_images & {q.image for q in test if q.image}
    assert not seen_prompts & {q.prompt.split("\n")[0] for q in test}


def test_holdout_people_are_in_no_training_file():
    holdout = {p.biography["Name"] for p in load_people(POCKET, "Holdout_Set")}
    for split in ("ft_Data", "base_Data"):
        table = pq.read_table(POCKET / split, columns=["ID", "metadata"]).to_pylist()
        assert not [row["ID"] for row in table if row["ID"].startswith("H")]
        answers = {pair["Answer"] for row in table for pair in json.loads(row["metadata"])}
        assert not [text for text in answers if any(text.startswith(name) for name in holdout)]
