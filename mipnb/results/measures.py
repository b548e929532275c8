"""Table 1 in numbers: means and intervals over seeds, forgetting rates, retention, the gap between the modalities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mipnb.evaluation import compare
from mipnb.metrics import t_975
from mipnb.plotting import MAIN_METRIC

#: as tables and figures call the methods, in their order
NAMES = {
    "vanilla": "Vanilla", "retrained": "retrained", "ga_diff": "GA_Diff", "kl_min": "KL_Min", "npo": "NPO", "manu": "MANU",
    "idk": "IDK", "rmu": "RMU", "rmu_adaptive": "adaptive RMU", "mmunlearner": "MMUnlearner", "depn": "DEPN",
    "random": "random neurons", "edited": "ours",
}  # fmt: skip
#: not methods of unlearning: what there was, and what there ought to be
REFERENCES = ("vanilla", "retrained")
OURS, CONTROLS = "edited", ("random",)
TASKS = ("VQA", "VGEN", "QA", "GEN")
#: task with a picture -> the same without
PAIRS = {"VQA": "QA", "VGEN": "GEN"}
COLUMNS = tuple(f"{split}{task}" for task in TASKS for split in "FR")
#: which splits F and R stand for
SEEN, UNSEEN = ("forget", "retain"), ("test_forget", "test_retain")


def on(benchmark: str, model: str, ratio: int | None = None) -> str:
    """What numbers were measured on, for a caption: nobody is to take pocket's model for one of the paper's."""
    small = ", a small Qwen2.5-VL and none of the paper's" if benchmark.startswith("pocket") else ""
    return f"{benchmark}, model {model}{small}" + (f", {ratio} % forgotten" if ratio else "")


def seeds_told(results: pd.DataFrame) -> str:
    """How many seeds the means of ours and of the random neurons are of, at every forget ratio."""
    told = []
    for ratio, part in results.groupby("forget_ratio"):
        counts = part.groupby("method").seed.nunique()
        own = f"{ratio} %: {counts.get(OURS, 0)}"
        told.append(f"{own} (random neurons {counts['random']})" if "random" in counts else own)
    return f"seeds at {', '.join(told)}"


def in_order(methods: Sequence[str]) -> list[str]:
    """Methods as tables list them; ValueError for one without a name."""
    if unknown := sorted(set(methods) - set(NAMES)):
        raise ValueError(f"methods {unknown} have no name in a table; expected some of {', '.join(NAMES)}")
    return [name for name in NAMES if name in set(methods)]


def baselines(methods: Sequence[str]) -> list[str]:
    """Those that ours is held against: no reference, no control."""
    return [name for name in in_order(methods) if name not in (*REFERENCES, *CONTROLS, OURS)]


def main_rows(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of each task's main metric, of the tasks of Table 1."""
    return results[results.task.isin(TASKS) & (results.task.map(MAIN_METRIC) == results.metric)]


def seed_means(results: pd.DataFrame, splits: tuple[str, str], ratio: int) -> pd.DataFrame:
    """Means over seeds with 95 % intervals, of the columns of Table 1.

    Args:
        results: of notebook 06.
        splits: the splits that F and R stand for.
        ratio: forget ratio, percent.

    Returns:
        One row a method and column: method, column, value, half (half the interval of Student's t over seeds; NaN for one
        seed), n_seeds, low, high (means of the seeds' intervals between people).
    """
    rows = main_rows(results)
    rows = rows[(rows.forget_ratio == ratio) & rows.split.isin(splits)]
    rows = rows.assign(column=rows.split.map(dict(zip(splits, "FR", strict=True))) + rows.task)
    parts = {name: (name, "mean") for name in ("value", "low", "high")}
    found = rows.groupby(["method", "column"]).agg(**parts, sd=("value", "std"), n_seeds=("seed", "nunique"))
    order = pd.MultiIndex.from_product([in_order(rows.method), COLUMNS], names=["method", "column"])
    table = found.reindex(order.intersection(found.index, sort=False)).reset_index()
    table["half"] = [half_interval(row.sd, row.n_seeds) for row in table.itertuples()]
    return table[["method", "column", "value", "half", "n_seeds", "low", "high"]]


def half_interval(sd: float, n: int) -> float:
    """Half the 95 % interval of a mean of n values with standard deviation sd (Student's t); NaN for one value."""
    return t_975(n - 1) * sd / np.sqrt(n) if n > 1 else float("nan")


def best(means: pd.DataFrame) -> set[tuple[str, str]]:
    """(method, column) of the lowest F and the highest R of each column, references left out; ties to three digits share."""
    found = set()
    for column, rows in means[~means.method.isin(REFERENCES)].groupby("column"):
        values = rows.value.round(3)
        top = values.min() if column.startswith("F") else values.max()
        found |= {(method, column) for method in rows.method[values == top]}
    return found


def rates(results: pd.DataFrame, splits: tuple[str, str]) -> pd.DataFrame:
    """Forgetting rate (1 - after / vanilla) of F and retention (after / vanilla) of R, means over seeds.

    Returns:
        One row a method, forget_ratio and task: forgetting_rate, retention, forget, retain (the values themselves).
    """
    table = compare(main_rows(results))
    keys = ["method", "forget_ratio", "task"]
    forget, retain = (table[table.split == split].set_index(keys) for split in splits)
    found = {
        "forgetting_rate": forget.forgetting_rate, "retention": retain.retention, "forget": forget.value,
        "retain": retain.value,
    }  # fmt: skip
    return pd.DataFrame(found).reset_index()


def kept_by_ratio(results: pd.DataFrame, split: str) -> pd.DataFrame:
    """Share of vanilla's mark that is kept on a split, mean over the tasks: a row a method, a column a forget ratio."""
    table = compare(main_rows(results))
    part = table[(table.split == split) & (table.method != "vanilla")]
    wide = part.pivot_table(index="method", columns="forget_ratio", values="retention", aggfunc="mean")
    return wide.loc[in_order(wide.index)].rename(index=NAMES, columns="{} %".format)


def rate_table(results: pd.DataFrame, splits: tuple[str, str], ratio: int) -> pd.DataFrame:
    """One row a method (vanilla left out): forgetting rates, the gap between modalities in points, retention.

    Columns (what, task): ("forgetting rate", VQA ...), ("gap, points", "VQA-QA" ...), ("retention", ...).
    """
    found = rates(results, splits)
    found = found[(found.forget_ratio == ratio) & (found.method != "vanilla")]
    wide = found.pivot(index="method", columns="task", values=["forgetting_rate", "retention"])
    forgot, kept = wide["forgetting_rate"][list(TASKS)], wide["retention"][list(TASKS)]
    gaps = pd.DataFrame(
        {f"{one}-{other}": 100 * (forgot[one] - forgot[other]) for one, other in PAIRS.items()}
    )
    table = pd.concat({"forgetting rate": forgot, "gap, points": gaps, "retention": kept}, axis=1)
    return table.loc[in_order(table.index)].rename(index=NAMES)
