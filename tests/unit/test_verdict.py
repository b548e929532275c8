"""The demands on an edit, on results made by hand."""

import pandas as pd
import pytest

from mipnb.evaluation import COLUMNS
from mipnb.task_names import task_name
from mipnb.verdict import FORGET_BARS, FORGOTTEN_SPLITS, KEPT_METRICS, KEPT_SPLITS, verdict, verdict_text


def results(**changed: float) -> pd.DataFrame:
    """Vanilla at 0.8 everywhere; edited with two seeds, 0.05 on forget and 0.8 on kept people, but for `changed`."""
    rows = []
    forgotten = [(split, task, metric) for split in FORGOTTEN_SPLITS for task, metric, _ in FORGET_BARS]
    kept = [(split, task, metric) for split in KEPT_SPLITS for task, metric in KEPT_METRICS.items()]
    for split, task, metric in forgotten + kept:
        after = changed.get(f"{split}_{task}", 0.05 if split in FORGOTTEN_SPLITS else 0.8)
        for method, seed, value in (
            ("vanilla", 1, 0.8),
            ("edited", 1, after - 0.02),
            ("edited", 2, after + 0.02),
        ):
            labels = ["r", "m", "b", method, 5, seed]
            modality = "image_text" if task.startswith(("V", "CLOZE_V")) else "text"
            rows.append([*labels, split, task, modality, metric, value, 9, 0.0, 1.0])
    return pd.DataFrame(rows, columns=COLUMNS)


def test_all_demands_can_be_met():
    table = verdict(results())
    assert len(table) == 2 * 4 + 3 * 6
    assert table.met.all()
    assert "all 26 demands are met" in verdict_text(table)


@pytest.mark.parametrize(
    ("cell", "good", "bad"),
    [
        ("forget_VQA", 0.299, 0.301),
        ("test_forget_QA", 0.299, 0.301),
        ("forget_VGEN", 0.099, 0.101),
        ("test_forget_GEN", 0.099, 0.101),
        ("retain_CLOZE_QA", 0.777, 0.775),
        ("celebrity_VGEN", 0.777, 0.775),
        ("test_retain_VQA", 0.777, 0.775),
    ],
)
def test_the_mean_over_seeds_is_judged_at_each_bound(cell: str, good: float, bad: float):
    assert verdict(results(**{cell: good})).met.all()
    missed = verdict(results(**{cell: bad}))
    assert (~missed.met).sum() == 1
    row = missed[~missed.met].iloc[0]
    assert f"{row.split}_{row.task}" == cell
    assert f"{row.split} {task_name(row.task)} " in verdict_text(missed)


def test_what_was_not_measured_is_not_met():
    table = verdict(results().query("split != 'celebrity'"))
    assert set(table[~table.met].split) == {"celebrity"}


def test_a_method_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'random'; found"):
        verdict(results(), "random")
