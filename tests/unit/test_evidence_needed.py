"""Neurons that an edit needs, and how surely a path needs a quarter of what random choice does."""

import pandas as pd
import pytest

from mipnb.evidence.needed import needed_sentence, neurons_needed

INF = float("inf")


def marks(*edits: tuple) -> pd.DataFrame:
    """Recall of two people a set after edits: choice, k, forget set, retain set, each set's pair of people."""
    rows = [
        ("edit", choice, k, group, person, recall)
        for choice, k, *sets in edits
        for group, pair in zip(("forget", "retain"), sets, strict=True)
        for person, recall in zip("pq", pair, strict=True)
    ]
    rows += [
        ("nothing", "nothing", 0, group, person, 1.0) for group in ("forget", "retain") for person in "pq"
    ]
    table = pd.DataFrame(rows, columns=["measure", "choice", "k", "set", "person_id", "recall"])
    return table.assign(unit="", draw=0, n=1)


def test_the_fewest_that_also_retain():
    edits = [("path", k, (f, f), (r, r)) for k, f, r in ((1, 0.9, 1), (2, 0.1, 0.5), (4, 0.1, 1), (8, 0, 1))]
    table = marks(*edits)

    def needed(forgetting, retention=0.99):
        return neurons_needed(table, ["path"], forgetting, retention, n_resamples=5).path.tolist()

    assert needed(0.9) == [4] * 6
    assert needed(1.0) == [8] * 6
    assert needed(0.9, retention=0.4) == [2] * 6
    assert needed(1.0, retention=1.01) == [INF] * 6


def test_choices_are_held_against_each_other_on_the_same_people():
    """The path forgets p with 1 neuron and q with 4, random choice either with as many: never a quarter of it."""
    edits = [(c, k, f, (1, 1)) for c in ("path", "random") for k, f in ((1, (0, 1)), (4, (0, 0)))]
    needed = neurons_needed(marks(*edits), ["path", "random"], 0.9, n_resamples=200)
    assert needed.loc[0].tolist() == [4, 4]
    assert set(needed.path[1:]) == {1, 4}
    assert (needed.path == needed.random).all()
    assert "met in 0% of 200 resamples" in needed_sentence(needed, 0.9)


@pytest.mark.parametrize(
    ("path", "random", "said"),
    [(2, 8, "is met as measured, not surely."), (4, 8, "is **not met**."), (4, INF, "is open"),
     (INF, INF, "is **not met**: no number"), (INF, 8, "is **not met**: no number")],
)  # fmt: skip
def test_a_quarter_of_random_is_enough(path, random, said):
    needed = pd.DataFrame({"path": [path, 2.0, 2.0, 4.0, 4.0], "random": [random, 8.0, INF, 8.0, 8.0]})
    told = needed_sentence(needed, 0.9)
    assert said in told
    assert "met in 25% of 4 resamples, and in 25% the path alone" in told


def test_sure_is_what_hardly_any_resample_contradicts():
    needed = pd.DataFrame({"path": [2.0] * 41, "random": [8.0] * 40 + [4.0]})
    assert "is met. With" in needed_sentence(needed, 0.9)
    needed.loc[39, "random"] = 4.0
    assert "not surely" in needed_sentence(needed, 0.9)
