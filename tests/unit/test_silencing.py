"""Silencing: the right questions, hooks that come off, and verdicts that follow from the numbers."""

import pandas as pd
import pytest

from mipnb.benchmarks import draw_questions, forget_ids, load_training
from mipnb.models import ffns, fingerprint, load_model, load_processor
from mipnb.paths import NeuronPath
from mipnb.silencing import answer_probability, beside_random, silencing, verdict

ROOT, MODEL = "data/pocket", "data/pocket/vanilla"


@pytest.fixture(scope="module")
def model():
    return load_model(MODEL)


@pytest.fixture(scope="module")
def asked():
    return draw_questions(load_training(ROOT, ids=forget_ids(ROOT, 5)), 2, 0)


def _all_neurons(model, branch):
    nets = ffns(model, branch)
    return NeuronPath(
        branch, tuple(tuple(range(net.n_neurons)) for net in nets), nets[0].n_neurons, fingerprint(model)
    )


def test_silencing_a_branch_takes_its_answers_and_leaves_no_hook(model, asked):
    processor = load_processor(MODEL)
    choices = {"vision": [_all_neurons(model, "vision")], "text": [_all_neurons(model, "text")]}
    table = silencing(model, processor, {"forget": asked}, choices)
    change = table.set_index(["silenced", "modality"]).change
    assert change["nothing", "text"] == change["vision", "text"] == 0
    assert change["vision", "image_text"] < -0.3
    assert change["text", "text"] < -0.3
    after = answer_probability(model, processor, asked).groupby("modality").probability.mean()
    before = table[table.silenced == "nothing"].set_index("modality").probability
    assert after.to_dict() == before.to_dict()


def test_a_foreign_path_is_refused_and_no_hook_stays(model, asked):
    foreign = NeuronPath("text", ((0,),) * 4, 512, "0123456789abcdef")
    own = _all_neurons(model, "text")
    with pytest.raises(ValueError, match="0123456789abcdef"):
        silencing(model, load_processor(MODEL), {"forget": asked}, {"both": [own, foreign]})
    assert not any(net.output._forward_pre_hooks for net in ffns(model, "text"))


def _table(path, *draws):
    rows = [("nothing", 0.0, 0.0), ("path", *path)]
    rows += [(f"random {index}", *draw) for index, draw in enumerate(draws)]
    return pd.DataFrame(
        [
            (name, group, "text", 0.9, change)
            for name, forget, retain in rows
            for group, change in (("forget", forget), ("retain", retain))
        ],
        columns=["silenced", "set", "modality", "probability", "change"],
    )


def test_the_hardest_random_draw_is_the_yardstick():
    table = _table((-0.4, -0.1), (-0.1, -0.1), (-0.3, -0.05))
    found = beside_random(table, "path", ["random 0", "random 1"], "text")
    assert found == pytest.approx(
        {"forget": -0.4, "retain": -0.1, "random_forget": -0.3, "spared": 0.3, "random_spared": 0.25}
    )


@pytest.mark.parametrize(
    ("path", "harder", "kinder"),
    [
        ((-0.4, -0.1), "**more than** random", "**more** specific"),
        ((-0.2, -0.1), "**no more than** random", "**no more** specific"),
        ((-0.4, -0.3), "**more than** random", "**no more** specific"),
        ((-0.305, -0.05), "**no more than** random", "**no more** specific"),
    ],
)
def test_a_verdict_follows_the_numbers(path, harder, kinder):
    words = verdict(_table(path, (-0.3, -0.05)), "path", ["random 0"], "text")
    assert harder in words
    assert kinder in words
