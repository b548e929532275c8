"""The rule by which a method's setting is chosen on validation people, on tables made by hand."""

import pandas as pd

from mipnb.baselines import METHODS
from mipnb.params import Params
from mipnb.results.tuning import OURS, at_edge, choose, grid_of, read_choices, write_tuning
from mipnb.results.unlearners import settings_of


def test_every_method_has_as_many_tries_as_ours():
    assert {len(grid_of(method)) for method in [*METHODS, OURS]} == {6}


def test_a_choice_at_the_end_of_what_was_tried_is_told():
    assert at_edge("manu", {"share": 0.6}) == at_edge("manu", {"share": 0.1}) == ["share"]
    assert at_edge("manu", {"share": 0.3}) == []
    assert at_edge("rmu", {"learning_rate": 0.01, "retain_weight": 100.0}) == ["retain_weight"]


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


def test_rows_of_methods_that_were_not_tried_now_stay_if_made_on_the_same_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("mipnb.results.tuning._made_on", lambda trial: {"trial": trial})
    columns = ["method", "settings", "forget", "chosen"]
    first = pd.DataFrame(
        [["vanilla", "{}", 1.0, False], ["npo", '{"a": 1}', 0.1, True], ["edited", '{"b": 1}', 0.2, True]],
        columns=columns,
    )
    write_tuning(first, 1, tmp_path)
    again = pd.DataFrame([["vanilla", "{}", 1.0, False], ["edited", '{"b": 2}', 0.0, True]], columns=columns)
    write_tuning(again, 1, tmp_path)
    assert read_choices(str(tmp_path / "tuning.json")) == {"npo": {"a": 1}, "edited": {"b": 2}}
    assert list(pd.read_csv(tmp_path / "tuning.csv").method) == ["vanilla", "npo", "edited"]
    write_tuning(again, 2, tmp_path)
    assert list(pd.read_csv(tmp_path / "tuning.csv").method) == ["vanilla", "edited"], "another trial's rows"


def test_low_rank_updates_are_trained_where_the_source_has_them_and_the_run_asks():
    asked = {name: settings_of(name, Params(baseline_lora=True), {}).weights for name in METHODS}
    assert {name for name, weights in asked.items() if weights == "lora"} == {"ga_diff", "kl_min", "npo"}
    assert {settings_of(name, Params(), {}).weights for name in METHODS} == {"full"}
