"""The rule by which a method's setting is chosen on validation people, on tables made by hand."""

import pandas as pd

from mipnb.results.tuning import choose


def test_the_choice_weighs_forgetting_against_keeping():
    # harmonic means of (1 - forget, retain): 0.18, 0.957, 0.79
    rows = pd.DataFrame({"forget": [0.9, 0.05, 0.0], "retain": [1.0, 0.965, 0.65]}, index=[7, 8, 9])
    assert choose(rows) == 8


def test_keeping_more_than_vanilla_is_no_merit():
    rows = pd.DataFrame({"forget": [0.10, 0.12], "retain": [1.0, 1.5]})
    assert choose(rows) == 0


def test_settings_without_marks_are_not_chosen():
    rows = pd.DataFrame({"forget": [float("nan"), 1.0], "retain": [float("nan"), 0.0]})
    assert choose(rows) == 1
    assert choose(rows[:1]) is None
