"""Residuals, classifiers of the forgotten, sensitivity and stored units, on tables made by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mipnb.evaluation import COLUMNS
from mipnb.params import Params
from mipnb.results import residuals, sensitivity, telling_apart
from mipnb.results.sensitivity_figures import curve_points, sensitivity_sentences
from mipnb.results.store import ITEMS, item_name, stored
from mipnb.results.telling_apart_figures import risk_sentences

# units of work


def test_a_unit_is_made_once_and_an_interrupted_one_leaves_nothing(tmp_path):
    made = []

    def make():
        made.append(1)
        if len(made) == 1:
            raise KeyboardInterrupt
        return {"one": pd.DataFrame({"a": [1, 2]}), "two": pd.DataFrame({"b": [0.5]})}

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, {"seed": 1}, make)
    for _ in range(2):
        found = stored(tmp_path, {"seed": 1}, make)
        assert found["one"].a.tolist() == [1, 2]
        assert list(found) == ["one", "two"]
    assert len(made) == 2
    stored(tmp_path, {"seed": 2}, make)
    assert len(made) == 3


# residuals


def residual_table():
    rows = [
        (
            method,
            seed,
            5,
            branch,
            layer,
            split,
            modality,
            0.0 if method == "vanilla" else value * (layer + 1) * seed,
            0.7,
        )
        for method in ("vanilla", "edited", "ga_diff")
        for seed in (1, 3)
        for branch, modality in (("text", "text"), ("text", "image_text"), ("vision", "image_text"))
        for layer in (0, 1)
        for split, value in (("forget", 0.2 if method == "edited" else 0.1), ("retain", 0.1))
    ]
    return pd.DataFrame(rows, columns=residuals.COLUMNS)


def test_residuals_are_means_over_seeds_without_vanilla():
    means = residuals.residual_means(residual_table()).set_index(
        ["branch", "split", "modality", "method", "layer"]
    )
    assert "vanilla" not in means.index.get_level_values("method")
    assert means.value["text", "forget", "text", "edited", 1] == pytest.approx(0.2 * 2 * 2)
    assert means.n_seeds.unique().tolist() == [2]
    assert residuals.residual_means(residual_table(), "value").value.tolist() == pytest.approx([0.7] * 24)


def test_methods_stand_in_the_order_of_table_1_with_ours_near_the_end():
    names = ["edited", "npo", "mine", "retrained", "vanilla", "ga_diff", "random"]
    assert residuals.in_order(names) == ["vanilla", "ga_diff", "npo", "mine", "random", "edited", "retrained"]
    assert residuals.named(["edited", "mine"]) == ["ours", "mine"]


def test_selectivity_is_forget_over_retain():
    means = residuals.residual_means(residual_table())
    found = residuals.selectivity(means)
    assert found.loc["edited"].tolist() == pytest.approx([2, 2, 2])
    assert found.loc["ga_diff"].tolist() == pytest.approx([1, 1, 1])
    assert "with ours, the most of all; ours 2.00, place 1 of 2" in residuals.residual_sentences(means)


def test_heat_maps_have_four_panels_for_language_and_two_for_vision():
    means = residuals.residual_means(residual_table())
    for branch, count in (("text", 4), ("vision", 2)):
        titles = [ax.get_title() for ax in residuals.residual_figure(means, branch).axes]
        assert len([title for title in titles if title]) == count
    with pytest.raises(ValueError, match="no residuals of branch 'audio'"):
        residuals.residual_figure(means, "audio")


def test_another_ratio_or_a_missing_column_is_refused(tmp_path):
    residual_table().to_parquet(tmp_path / "residuals.parquet")
    with pytest.raises(ValueError, match=r"no rows of forget_ratio 10; it has \[5\]"):
        residuals.read_table(tmp_path / "residuals.parquet", residuals.COLUMNS, 10)
    with pytest.raises(ValueError, match="lacks the columns"):
        residuals.read_table(tmp_path / "residuals.parquet", ["features"], 5)
    with pytest.raises(FileNotFoundError, match="06_baselines"):
        residuals.read_table(tmp_path / "logits.parquet", ["features"], 5)


# telling forget from retain


def logits(shift: float, seed: int = 0, n_features: int = 8, own: float = 3.0):
    """8 people to forget, 12 to keep, 5 questions each; a person's rows share features, forgotten people a direction."""
    random = np.random.default_rng(seed)
    rows = []
    for index in range(20):
        centre = own * random.normal(size=n_features)
        for question in range(5):
            values = centre + 0.1 * random.normal(size=n_features)
            values[0] += shift * (index < 8)
            rows.append(
                (
                    "m",
                    42,
                    5,
                    "forget" if index < 8 else "retain",
                    "text",
                    f"p{index:02d}",
                    f"q{question}",
                    values,
                )
            )
    return pd.DataFrame(rows, columns=[*telling_apart.COLUMNS[:-1], "question", "features"])


def arrays(table):
    return np.stack(table.features), (table.split == "forget").to_numpy(), table.person_id.to_numpy()


def test_nobody_is_on_both_sides_of_a_fold():
    _, forgotten, people = arrays(logits(0.0))
    asked = []
    for learn, ask in telling_apart.folds(forgotten, people, 0):
        assert not set(people[learn]) & set(people[ask])
        assert forgotten[ask].any()
        asked += ask.tolist()
    assert sorted(asked) == list(range(100))
    keep = (people == "p00") | ~forgotten
    with pytest.raises(ValueError, match="1 people to forget and 12 to keep"):
        telling_apart.folds(forgotten[keep], people[keep], 0)


def test_people_who_differ_by_themselves_are_not_told_apart_and_a_shared_mark_is():
    found = {}
    for shift in (0.0, 40.0):
        areas = []
        for seed in range(4):
            features, forgotten, people = arrays(logits(shift, seed))
            areas.append(
                telling_apart.measures(*telling_apart.out_of_fold(features, forgotten, people, 0), forgotten)[
                    0
                ]
            )
        found[shift] = np.mean(areas)
    assert abs(found[0.0] - 0.5) < 0.2
    assert found[40.0] > 0.99


def test_measures_by_hand():
    forgotten, fold = np.array([True, True, False, False]), np.zeros(4)
    mixed = np.array([0.9, 0.4, 0.6, 0.1])
    assert telling_apart.measures(mixed, fold, forgotten) == pytest.approx((0.75, 0.5))
    assert telling_apart.measures(mixed, np.array([0, 1, 0, 1]), forgotten) == pytest.approx(
        (1.0, 0.5)
    )  # pairs of a fold
    weights = np.array([1.0, 0.0, 1.0, 1.0])
    assert telling_apart.measures(mixed, fold, forgotten, weights) == pytest.approx((1.0, 0.75))
    assert np.isnan(telling_apart.measures(mixed, fold, forgotten, np.array([0.0, 0.0, 1.0, 1.0]))).all()


def test_permuted_labels_are_whole_people():
    _, forgotten, people = arrays(logits(0.0))
    dealt = telling_apart.permuted(forgotten, people, np.random.default_rng(1))
    by_person = pd.Series(dealt).groupby(people).agg(["nunique", "first"])
    assert (by_person["nunique"] == 1).all()
    assert by_person["first"].sum() == 8
    assert (dealt != forgotten).any()


def test_risk_is_what_a_method_tells_beyond_the_retrained_model():
    tables = {"retrained": logits(0.0), "edited": logits(40.0)}
    draws, null = telling_apart.all_methods(
        pd.concat([table.assign(method=name) for name, table in tables.items()]),
        lambda key, make: make(), 4, 0, list(tables),
    )  # fmt: skip
    table = telling_apart.summary(draws, null).set_index(["method", "measure"])
    assert table.value["edited", "auc"] > 0.99
    assert table.risk["retrained", "auc"] == 0
    assert table.risk["edited", "auc"] == pytest.approx(
        table.value["edited", "auc"] - table.value["retrained", "auc"]
    )
    assert table.p_value["edited", "auc"] == pytest.approx(1 / 5)
    assert table.low["edited", "auc"] <= table.value["edited", "auc"] <= table.high["edited", "auc"] + 1e-9


def test_a_classifier_made_beside_the_notebook_is_the_one_that_it_takes(tmp_path):
    table = pd.concat([logits(shift).assign(method=name) for name, shift in (("a", 0.0), ("b", 40.0))])
    (tmp_path / "06_baselines").mkdir()
    table.to_parquet(tmp_path / "06_baselines" / "logits.parquet")
    values = {"run_dir": str(tmp_path), "forget_ratio": 5, "n_permutations": 2, "seed": 0}
    telling_apart.load_teller(values)(("text", "b"))
    (unit,) = (tmp_path / "11_telling_apart" / ITEMS).iterdir()
    made = []

    def kept(key, make):
        made.append(item_name(key))
        return stored(tmp_path / "11_telling_apart", key, make)

    whole = telling_apart.read_table(tmp_path / "06_baselines" / "logits.parquet", telling_apart.COLUMNS, 5)
    telling_apart.all_methods(whole, kept, 2, 0, ["a", "b"])
    assert made[1] == unit.name


def test_only_what_is_surely_more_telling_is_called_so():
    columns = [
        "modality",
        "method",
        "measure",
        "value",
        "low",
        "high",
        "chance_high",
        "risk",
        "risk_low",
        "risk_high",
    ]
    rows = [
        ("text", "vanilla", "auc", 0.5, 0.4, 0.6, 0.6, -0.1, -0.2, 0.1),
        ("text", "edited", "auc", 0.9, 0.8, 1.0, 0.6, 0.3, 0.1, 0.4),
        ("text", "npo", "auc", 0.8, 0.6, 1.0, 0.6, 0.2, -0.1, 0.4),
        ("text", "retrained", "auc", 0.6, 0.5, 0.7, 0.6, 0.0, 0.0, 0.0),
    ]
    told = risk_sentences(pd.DataFrame(rows, columns=columns))
    assert (
        "retrained model is told at 0.60. More telling, with intervals above 0: ours (0.90, +0.30 [+0.10, +0.40])."
        in told
    )
    assert "Vanilla: 0.50 [0.40, 0.60], no better than permuted labels" in told
    assert "Ours: 0.90 [0.80, 1.00], above permuted labels" in told


# sensitivity

PARAMS = Params()


def test_one_setting_moves_at_a_time_and_never_to_its_default():
    found = sensitivity.variations(PARAMS, {"text": 100, "vision": 100}, 4)
    values = {
        name: sorted(one.value for one in found if one.parameter == name) for name in sensitivity.FACTORS
    }
    assert values["top_k"] == [12, 24, 96]
    assert sorted(one.value for one in found if one.parameter == "layer_index") == [1, 2]
    for one in found:
        assert one.value != sensitivity.default_of(PARAMS, one.parameter)
        changed = set(one.changes)
        assert changed == ({"text_top_k", "vision_top_k"} if one.parameter == "top_k" else {one.parameter})
    both = next(one for one in found if one.value == 24 and one.parameter == "top_k")
    assert both.changes == {"text_top_k": 24, "vision_top_k": 3}


def test_values_stay_within_the_model_and_above_zero():
    found = sensitivity.variations(
        Params(edit_steps=1, n_steps=1, layer_index=0), {"text": 60, "vision": 7}, 1
    )
    assert max(one.changes["text_top_k"] for one in found if one.parameter == "top_k") == 60
    assert max(one.changes["vision_top_k"] for one in found if one.parameter == "top_k") == 7
    assert [one.value for one in found if one.parameter == "edit_steps"] == [2]
    assert not [one for one in found if one.parameter == "layer_index"]


def test_settings_of_editing_leave_the_paths_alone():
    setting = SimpleNamespace(params=PARAMS)
    one = sensitivity.Variation("steering_scale", 2.0, {"steering_scale": 2.0})
    assert sensitivity.varied_paths(setting, one, ["text", "vision"], "nowhere") == ["text", "vision"]


def results(method, forget, retain):
    rows = [
        (
            "r",
            "m",
            "b",
            method,
            5,
            42,
            split,
            "QA",
            "text",
            "accuracy",
            retain if "retain" in split else forget,
            80,
            0.0,
            1.0,
        )
        for split in ("forget", "retain", "test_forget", "test_retain")
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_curves_hold_the_default_among_the_other_values():
    default = pd.concat([results("vanilla", 1.0, 1.0), results("edited", 0.2, 0.9)])
    varied = pd.concat(
        [
            results("edited", f, r).assign(parameter="top_k", value_of=v)
            for v, f, r in ((96.0, 0.1, 0.95), (24.0, 0.6, 1.0))
        ]
    )
    points = curve_points(default, varied, PARAMS)
    assert points.value.tolist() == [24, 48, 96]
    assert points.default.tolist() == [False, True, False]
    assert points.forgetting.tolist() == pytest.approx([0.4, 0.8, 0.9])
    assert points.retention_unseen.tolist() == pytest.approx([1.0, 0.9, 0.95])
    assert "no worse in the other: 96." in sensitivity_sentences(points)
