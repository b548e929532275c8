"""What an edit must reach: forgotten here, kept there; judged on means over the edit's seeds."""

from __future__ import annotations

import pandas as pd

from mipnb.evaluation import compare
from mipnb.task_names import named_tasks

#: at most, on the forget people: a guess among four options is right in 0.25
FORGET_BARS = (
    ("VQA", "accuracy", 0.30),
    ("QA", "accuracy", 0.30),
    ("VGEN", "value_recall", 0.10),
    ("GEN", "value_recall", 0.10),
)
#: at least, of what the vanilla model reaches, on everybody who is kept
KEPT = 0.97
KEPT_METRICS = {
    "VQA": "accuracy", "QA": "accuracy", "VGEN": "rougeL", "GEN": "rougeL", "CLOZE_VQA": "accuracy", "CLOZE_QA": "accuracy",
}  # fmt: skip
FORGOTTEN_SPLITS = ("forget", "test_forget")
KEPT_SPLITS = ("retain", "celebrity", "test_retain")
COLUMNS = ["demand", "split", "task", "metric", "measured", "bound", "met"]


def verdict(results: pd.DataFrame, method: str = "edited") -> pd.DataFrame:
    """Every demand on an edit beside what was measured.

    Args:
        results: `results.parquet`, vanilla among its methods.
        method: the method judged.

    Returns:
        One row a demand: demand ("forget" or "keep"), split, task, metric, measured (the value on the forget
            people, the share of vanilla's value on the others), bound ("<= 0.30"), met. A cell that was not
            measured is not met.

    Raises:
        ValueError: no results of the method, or of vanilla.
    """
    table = compare(results)
    if method not in set(table.method):
        raise ValueError(f"no results of method {method!r}; found {sorted(set(table.method))}")
    cells = table[table.method == method].set_index(["split", "task", "metric"])
    forgotten = [
        _row("forget", cells.value, (split, task, metric), most, False)
        for split in FORGOTTEN_SPLITS
        for task, metric, most in FORGET_BARS
    ]
    kept = [
        _row("keep", cells.retention, (split, task, metric), KEPT, True)
        for split in KEPT_SPLITS
        for task, metric in KEPT_METRICS.items()
    ]
    return pd.DataFrame(forgotten + kept, columns=COLUMNS)


def _row(demand: str, values: pd.Series, cell: tuple[str, str, str], bound: float, at_least: bool) -> tuple:
    measured = float(values.get(cell, float("nan")))
    met = measured >= bound if at_least else measured <= bound  # NaN meets nothing
    return demand, *cell, measured, f"{'>=' if at_least else '<='} {bound:.2f}", met


def verdict_text(table: pd.DataFrame, method: str = "edited") -> str:
    """Markdown that says how many demands are met, and names those that are not."""
    missed = table[~table.met]
    if missed.empty:
        return f"**{method}: all {len(table)} demands are met.**"
    lines = [
        f"- {row.split} {row.task} {row.metric}: **{row.measured:.2f}**, demanded {row.bound}"
        for row in named_tasks(missed).itertuples()
    ]
    return f"**{method}: {len(missed)} of {len(table)} demands are missed.**\n\n" + "\n".join(lines)
