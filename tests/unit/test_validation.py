"""Validation people are apart from those that results are reported for, and a trial reaches from locating to scores."""

from functools import partial

import pandas as pd
import pytest

from mipnb import validation
from mipnb.artefacts import project_root
from mipnb.benchmarks import forget_ids, load_people
from mipnb.cli import main
from mipnb.param_files import read_parameters
from mipnb.pocket.validation import validation_sets

ROOT = project_root() / "data" / "pocket"


@pytest.fixture(scope="module")
def sets():
    return validation_sets(ROOT, 1)


def people(questions):
    return {question.person_id for question in questions}


def test_nobody_of_a_reported_forget_set_is_forgotten_and_bystanders_are_never_mentioned(sets):
    forget, retain, bystanders = people(sets.forget), people(sets.retain), people(sets.asked["bystander"])
    assert (len(forget), len(bystanders)) == (10, 30)
    assert not forget & set(forget_ids(ROOT, 15))
    assert not forget & retain
    assert not bystanders & (forget | retain)
    names = [sets.names[person] for person in bystanders]
    assert not [q for q in sets.forget + sets.retain if any(name in q.prompt + q.answer for name in names)]


def test_the_held_view_and_phrasing_are_in_no_set(sets):
    trained = {q.prompt.split("\n")[0] for q in sets.forget + sets.retain}
    held = [q for split in ("test_forget", "test_retain", "bystander") for q in sets.asked[split]]
    assert not [q for q in held if q.prompt.split("\n")[0] in trained]
    pictures = {
        image for split in ("Full_Set", "Test_Set") for p in load_people(ROOT, split) for image in p.images
    }
    pictures |= {q.image for q in sets.forget + sets.retain}
    assert not [q for q in held if q.image is not None and q.image in pictures]


def test_trials_differ_and_repeat(sets):
    assert (
        people(validation_sets(ROOT, 1).forget)
        == people(sets.forget)
        != people(validation_sets(ROOT, 2).forget)
    )


def test_more_people_than_there_are_is_refused():
    for n_forget in (0, 151):
        with pytest.raises(
            ValueError, match=f"{n_forget} to forget and 20 bystanders, but .* ask for 1 to 150"
        ):
            validation_sets(ROOT, 1, n_forget=n_forget, n_bystanders=20)


def test_a_trial_has_every_method_split_and_task(monkeypatch):
    drawn, small = [], partial(validation_sets, n_bystanders=1, n_retain=1)
    monkeypatch.setattr(
        validation, "validation_sets", lambda *at, **how: drawn.append(small(*at, **how)) or drawn[-1]
    )
    params = read_parameters([project_root() / "params" / "quick.yaml"])
    found = validation.validate(params, 1, n_forget=1)
    assert len(people(drawn[0].forget)) == 1
    assert len(found) == found.drop_duplicates(["method", "split", "task"]).shape[0] == 3 * 5 * (4 + 2)
    vanilla = found[(found.method == "vanilla") & found.split.isin(["forget", "retain"])]
    assert set(vanilla.task) == {"VQA", "QA", "VGEN", "GEN", "name", "begun"}
    assert (vanilla[vanilla.task != "name"].value > 0.9).all()
    names = found[found.task == "name"].set_index(["method", "split"]).value  # of one portrait a split
    assert set(names) <= {0.0, 1.0}
    assert names["vanilla", "forget"] == 1


def test_as_many_people_are_forgotten_as_the_command_says(monkeypatch, capsys):
    rows = [("forget", "QA", "edited", 0.0, 1)]
    table = pd.DataFrame(rows, columns=["split", "task", "method", "value", "trial"])
    asked = []
    monkeypatch.setattr(validation, "validate", lambda params, *how: asked.append(how) or table)
    assert main(["validate", "--trials", "4", "5", "--people", "3"]) == 0
    assert main(["validate", "--trials", "4"]) == 0
    assert asked == [(4, 3), (5, 3), (4, 10)]


def test_the_worst_trial_is_the_least_forgotten_and_the_least_kept():
    rows = [(split, "QA", "edited", value, trial) for split, values in
            {"forget": (0.1, 0.3), "bystander": (1.0, 0.8)}.items() for trial, value in enumerate(values)]  # fmt: skip
    table = validation.summary(pd.DataFrame(rows, columns=["split", "task", "method", "value", "trial"]))
    assert table["edited"].loc[("forget", "QA")].to_dict() == pytest.approx({"mean": 0.2, "worst": 0.3})
    assert table["edited"].loc[("bystander", "QA")].to_dict() == pytest.approx({"mean": 0.9, "worst": 0.8})
