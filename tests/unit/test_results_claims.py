"""What is claimed of ours beside the others, on values made by hand."""

import pandas as pd
import pytest

from mipnb.evaluation import COLUMNS
from mipnb.results.claims import beaten, claims, claims_text
from mipnb.results.measures import SEEN, TASKS, UNSEEN, kept_by_ratio, on, rate_table, seeds_told
from mipnb.results.table1 import flat_rates, rates_shown, unanswered

SPLITS = (*SEEN, *UNSEEN, "celebrity")
#: method -> mark on people to forget, on all others
MARKS = {
    "vanilla": (1.0, 1.0),
    "retrained": (0.3, 1.0),
    "rmu": (0.2, 0.97),
    "npo": (0.6, 0.999),
    "edited": (0.1, 0.95),
}
METRICS = {"VQA": "accuracy", "QA": "accuracy", "VGEN": "rougeL", "GEN": "rougeL"}


def results(ratios=(5, 10), **changed) -> pd.DataFrame:
    rows = []
    for method, (forget, kept) in (MARKS | changed).items():
        for ratio in ratios:
            for split in SPLITS:
                for task in TASKS:
                    value = forget if "forget" in split else kept
                    modality = "image_text" if task.startswith("V") else "text"
                    cell = {"split": split, "task": task, "modality": modality, "metric": METRICS[task]}
                    rows.append(cell | {"method": method, "forget_ratio": ratio, "value": value})
    fixed = {
        "run": "pocket",
        "model": "vanilla",
        "benchmark": "pocket",
        "seed": 42,
        "n": 10,
        "low": 0.0,
        "high": 1.0,
    }
    return pd.DataFrame(rows).assign(**fixed)[COLUMNS]


def parts(table: pd.DataFrame, claim: str) -> pd.DataFrame:
    return table[table.claim == claim]


def test_a_rival_counts_if_it_forgets_as_much_as_ours_or_as_the_retrained_model():
    table = claims(results(), 5)
    assert parts(table, "no better baseline").against.eq("none forgets as much").all()
    strict = parts(table, "no better of the retrained")
    assert len(strict) == 2 * len(TASKS)
    assert strict.against.eq("RMU").all()
    assert not strict.met.any()
    assert "keeps more: **not met (8 of 8 parts)**" in claims_text(table)
    better = claims(results(edited=(0.1, 0.98)), 5)
    assert parts(better, "no better of the retrained").met.all()


def test_ours_that_forgets_less_than_the_retrained_model_has_missed():
    table = claims(results(edited=(0.5, 1.0)), 5)
    assert not parts(table, "forgets").met.any()
    assert parts(table, "keeps").met.all()


def test_everybody_who_is_better_is_named_with_the_difference_random_neurons_too():
    told = beaten(results(random=(0.1, 1.0), ratios=(5,)), SEEN)
    assert "retain VQA random neurons by 0.050, NPO by 0.049, RMU by 0.020" in told
    assert "forget" not in told.replace("forget_", "")
    assert "at 10 %: none" in beaten(results(edited=(0.0, 1.0)), UNSEEN)
    assert "test_forget GEN RMU by 0.100" in beaten(results(edited=(0.3, 1.0)), UNSEEN)


def test_rates_have_the_methods_names_in_both_forms():
    table = rate_table(results(), SEEN, 5)
    assert table.loc["ours", ("forgetting rate", "QA")] == pytest.approx(0.9)
    assert flat_rates(table).columns[0] == "method"
    assert "| ours | 0.900 | 0.900 |" in rates_shown(table)
    assert kept_by_ratio(results(), "celebrity").loc["ours", "10 %"] == pytest.approx(0.95)


def test_answers_that_name_no_option_are_counted():
    table = results(ratios=(5,))
    unread = table[(table.metric == "accuracy")].assign(metric="n_unparsed", value=0.0)
    unread.loc[unread.split.isin(("forget", "test_forget")) & (unread.method == "edited"), "value"] = 10.0
    unread.loc[(unread.split == "retain") & (unread.method == "rmu"), "value"] = 10.0
    told = unanswered(pd.concat([table, unread]), 5)
    assert "ours 100%" in told
    assert "RMU 0%" in told


def test_captions_say_what_it_was_measured_on():
    assert "none of the paper's" in on("pocket", "vanilla", 5)
    assert on("mllmu-bench", "qwen", 5) == "mllmu-bench, model qwen, 5 % forgotten"
    assert (
        seeds_told(results(random=(0.1, 1.0)))
        == "seeds at 5 %: 1 (random neurons 1), 10 %: 1 (random neurons 1)"
    )
