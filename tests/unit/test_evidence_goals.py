"""The trial in short: words that follow from the numbers."""

from pathlib import Path

import pandas as pd

from mipnb.evidence.goals import goal_table, trial_summary
from mipnb.paths import NeuronPath

CONTROLS = ("random", "activation", "manu")


def verdicts(factors, own=4.0):
    """Verdicts of (branch, subject, mark) -> factors by which `own` exceeds CONTROLS' ratios; intervals 0.8 to 1.2 of them."""
    rows = [
        row
        for (branch, subject, mark), beside in factors.items()
        for control, factor in zip(CONTROLS, beside, strict=True)
        for row in (
            (branch, subject, mark, control, "ratio", own, own / factor, factor, 0.8 * factor, 1.2 * factor),
            (branch, subject, mark, control, "necessity", 0.6, 0.5, 0.1, 0, 0.2),
            (branch, subject, mark, control, "spared", 0.45, 0.1, 0.35, 0, 0.2),
        )
    ]
    columns = [
        "branch",
        "subject",
        "mark",
        "control",
        "measure",
        "value",
        "control_value",
        "margin",
        "low",
        "high",
    ]
    return pd.DataFrame(rows, columns=columns).assign(k=9)


def test_goals_are_held_against_random_and_the_better_point_wise_score():
    table = goal_table(
        verdicts({("text", "path", "recall"): (4.0, 2.0, 1.6), ("text", "path", "probability"): (2, 2, 2)})
    )
    first, second = table.to_dict("records")
    assert (first["mark"], first["k"], first["ratio"]) == ("recall", 9, 4.0)
    assert (first["forget"], round(first["retain"], 2)) == (0.6, 0.15)
    assert (first["random"], first["times random"], first["goal 3"]) == ("1.00", "4.00 [3.20, 4.80]", "met")
    assert first["point-wise"] == "2.50 (manu)", "the control with the larger ratio"
    assert (first["times point-wise"], first["goal 1.5"]) == (
        "1.60 [1.28, 1.92]",
        "met as measured, not surely",
    )
    assert second["goal 3"] == "not met"


def edits():
    left = {("path", 1): 0.4, ("path", 4): 0.0, ("random", 1): 1.0, ("random", 4): 0.0}
    marks = [
        ("edit", *key, *which)
        for key, value in left.items()
        for which in (("forget", value), ("retain", 1.0))
    ]
    marks += [("nothing", "nothing", 0, group, 1.0) for group in ("forget", "retain")]
    table = pd.DataFrame(marks, columns=["measure", "choice", "k", "set", "recall"])
    return table.assign(person_id="p", unit="", draw=0, n=1)


def test_a_trial_in_short_has_a_row_a_path_and_a_sentence_a_level(tmp_path: Path):
    factors = {
        ("text", "path", "recall"): (4.0, 4.0, 4.0),
        ("text", "path", "probability"): (1.0, 1.0, 1.0),
        ("text", "learned", "recall"): (2.0, 2.0, 1.6),
        ("vision", "run_recipe", "recall"): (3.5, 1.0, 1.0),
    }
    verdicts(factors).to_parquet(tmp_path / "verdicts.parquet")
    mine = verdicts({("text", "path", "recall"): (1.0, 9.0, 2.0)})
    own = pd.concat(
        [mine.assign(tried="text path by recipe"), mine.assign(tried="edit", measure="forgetting")]
    )
    own.drop(columns=["branch", "subject"]).to_parquet(tmp_path / "own.parquet")
    edits().to_parquet(tmp_path / "edited.parquet")
    for branch in ("text", "vision"):
        path = NeuronPath(branch, ((1,),), 64, "0" * 16, parameters={"choice": f"contrast, {branch}"})
        path.save(tmp_path / "located" / f"{branch}.safetensors")
    lines = trial_summary(tmp_path).splitlines()
    assert "text branch `contrast, text`; vision branch `contrast, vision`" in lines[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    heads, _, *first, again, _, mine = rows
    assert heads == again
    assert heads[:3] == ["branch", "silenced", "neurons a layer"]
    assert [row[:3] for row in first] == [
        ["text", "path on trial", "9 of 64"],
        ["text", "learned gates", "9 of 64"],
        ["vision", "path by the run's recipe", "9 of 64"],
    ]
    goals = [[row[heads.index(name)] for name in ("goal 3", "goal 1.5")] for row in (*first, mine)]
    assert goals == [
        ["met", "met"],
        ["**not met**", "met as measured, not surely"],
        ["met as measured, not surely", "**not met**"],
        ["**not met**", "met"],
    ]
    assert mine[:3] == ["text", "path by the recipes on trial", "9 of 64"]
    told = [line.partition("random) is ")[2].split(". ")[0] for line in lines if line.startswith("- Neurons")]
    assert told == ["met", "**not met**"]
