"""The tidy table of results: one row a model, split, task and metric; and what unlearning did, read off it.

Splits are design.md's, with the unseen view (Test_Set) apart for people to forget and people to keep:
`test_forget`, `test_retain`; `test` stands for the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mipnb.artefacts import atomic_path
from mipnb.generation import evaluate, generate
from mipnb.metrics import MARK_COLUMNS, interval, marks
from mipnb.task_names import named_tasks

__all__ = [
    "COUNTS", "aggregate", "compare", "evaluate", "forgetting_rate", "generate", "read_results", "retention", "score",
    "score_marks", "side_by_side", "write_results",
]  # fmt: skip

LABELS = ["run", "model", "benchmark", "method", "forget_ratio", "seed"]
CELL = ["split", "task", "modality", "metric"]
COLUMNS = [*LABELS, *CELL, "value", "n", "low", "high"]
SPLITS = ("forget", "retain", "test", "test_forget", "test_retain", "celebrity", "holdout", "real_world")
TASKS = ("VQA", "QA", "VGEN", "GEN", "CLOZE_VQA", "CLOZE_QA", "FT")
#: metrics whose value is a count of answers, not a mean of marks
COUNTS = ("n_unparsed", "n_judge_unparsed")
METRICS = (
    "accuracy", "rougeL", "value_recall", "rouge1", "rouge2", "rougeL_recall", "bleu",
    "probability", "truth_ratio", "judge", *COUNTS,
)  # fmt: skip
MODALITIES = ("image_text", "text")


def score(
    answers: pd.DataFrame,
    *,
    run: str,
    model: str,
    benchmark: str,
    method: str,
    forget_ratio: int,
    seed: int,
    protocol: str = "pocket",
) -> pd.DataFrame:
    """Mark every answer and average by split, task and metric.

    Args:
        answers: from `evaluate`.
        run, model, benchmark, method, forget_ratio, seed: what the answers come from; written into every row.
        protocol: whose rules mark them, see `metrics.marks`.

    Returns:
        Columns `COLUMNS`; see `score_marks`.
    """
    labels = dict(zip(LABELS, (run, model, benchmark, method, forget_ratio, seed), strict=True))
    return score_marks(_marked(answers, protocol), **labels)


def score_marks(
    marked: pd.DataFrame, *, run: str, model: str, benchmark: str, method: str, forget_ratio: int, seed: int
) -> pd.DataFrame:
    """Average marks by split, task and metric.

    Args:
        marked: one row a mark, columns `metrics.MARK_COLUMNS`: of answers, likelihoods or a judge.
        run, model, benchmark, method, forget_ratio, seed: what the marks come from; written into every row.

    Returns:
        Columns `COLUMNS`. `value` is a mean of marks from 0 to 1 with its 95 % interval low, high (`metrics.interval`),
        `n` the number of questions; for the metrics `COUNTS` it is a count, without interval.
    """
    labels = [run, model, benchmark, method, forget_ratio, seed]
    rows = []
    for key, group in marked.groupby(CELL, sort=False):
        values, people = group.mark.to_numpy(), group.person_id.to_numpy()
        if f"n_{key[-1]}" in COUNTS:
            rows.append([*labels, *key[:-1], f"n_{key[-1]}", values.sum(), len(values), np.nan, np.nan])
        else:
            rows.append([*labels, *key, values.mean(), len(values), *interval(values, people)])
    return pd.DataFrame(rows, columns=COLUMNS)


def _marked(answers: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """One row a mark: split, task, modality, metric, person_id, mark."""
    rows = [
        (row.split, row.task, row.modality, metric, row.person_id, mark)
        for row in answers.itertuples(index=False)
        for metric, mark in marks(row, protocol).items()
    ]
    return pd.DataFrame(rows, columns=MARK_COLUMNS)


def forgetting_rate(after: float | pd.Series, vanilla: float | pd.Series) -> float | pd.Series:
    """1 - after / vanilla: 1 is all forgotten, 0 nothing; NaN where vanilla is 0."""
    return 1 - retention(after, vanilla)


def retention(after: float | pd.Series, vanilla: float | pd.Series) -> float | pd.Series:
    """after / vanilla: 1 is all kept; NaN where vanilla is 0."""
    if isinstance(vanilla, pd.Series):
        return after / vanilla.where(vanilla != 0)
    return after / vanilla if vanilla else after * np.nan


def aggregate(results: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds: columns as before without seed, and n_seeds, sd (between seeds; NaN for one seed).

    low and high are the means of the seeds' intervals: they speak of the questions, sd of the training.
    """
    keys = [name for name in LABELS + CELL if name != "seed"]
    parts = {name: (name, "mean") for name in ("value", "n", "low", "high")}
    return (
        results.groupby(keys, sort=False)
        .agg(**parts, n_seeds=("seed", "nunique"), sd=("value", "std"))
        .reset_index()
        .astype({"n": int})
    )


def compare(results: pd.DataFrame, vanilla: str = "vanilla") -> pd.DataFrame:
    """Every method beside the vanilla model: means over seeds, with forgetting rate and retention.

    Args:
        results: rows of one or more methods, `vanilla` among them; may hold several seeds.
        vanilla: the method to compare with.

    Returns:
        Columns of `aggregate`, then vanilla, forgetting_rate, retention. Counts are left out. The three are NaN for a judge
        none of whose grades of vanilla's answers could be read.

    Raises:
        ValueError: no vanilla rows for some cell.
    """
    means = aggregate(results[~results.metric.isin(COUNTS)])
    keys = ["model", "benchmark", "forget_ratio", *CELL]
    reference = means[means.method == vanilla].drop_duplicates(keys)[[*keys, "value"]]
    table = means.merge(reference.rename(columns={"value": "vanilla"}), on=keys, how="left", validate="m:1")
    lacking = table.vanilla.isna() & ~_all_unread(results[results.method == vanilla], table[keys])
    if lacking.any():
        missing = table.loc[lacking, CELL].drop_duplicates().to_numpy().tolist()
        raise ValueError(f"no rows of method {vanilla!r} for {missing[:3]}; methods found: {_found(results)}")
    rate, kept = forgetting_rate(table.value, table.vanilla), retention(table.value, table.vanilla)
    return table.assign(forgetting_rate=rate, retention=kept)


def _all_unread(results: pd.DataFrame, cells: pd.DataFrame) -> np.ndarray:
    """Whether cells are grades of a judge that is known to have graded these results, if only by its unread grades."""
    counted = results[results.metric == "n_judge_unparsed"].assign(metric="judge")[list(cells)]
    return pd.MultiIndex.from_frame(cells).isin(pd.MultiIndex.from_frame(counted))


def _found(results: pd.DataFrame) -> list[str]:
    return sorted(results.method.unique().tolist())


def side_by_side(results: pd.DataFrame, methods: Iterable[str] | None = None) -> pd.DataFrame:
    """Means over seeds with one column a method, one row a split, task (as it is shown), modality and metric.

    Raises:
        ValueError: a method that is not there, or rows of several models, benchmarks or forget ratios.
    """
    for name in ("model", "benchmark", "forget_ratio"):
        if results[name].nunique() != 1:
            found = sorted(results[name].unique().tolist())
            raise ValueError(f"results of {name} {found}: choose one of them to stand side by side")
    means = aggregate(results)
    order = list(means.method.unique()) if methods is None else list(methods)
    if missing := [name for name in order if name not in set(means.method)]:
        raise ValueError(f"no results of methods {missing}; found {_found(results)}")
    wide = named_tasks(means).pivot_table(index=CELL, columns="method", values="value", sort=False)
    return wide[order].rename_axis(columns=None)


def write_results(results: pd.DataFrame, path: str | Path) -> Path:
    """Write the tidy table whole or not at all, after checking it.

    Raises:
        ValueError: wrong columns, an unknown split, task, metric or modality, a missing value, or a value
            outside its interval; nothing is written then.
    """
    _check(results)
    with atomic_path(path) as temporary:
        results.to_parquet(temporary, index=False)
    return Path(path)


def read_results(*paths: str | Path) -> pd.DataFrame:
    """The rows of one or more result files, in that order; ValueError names a file whose table is not one."""
    tables = []
    for path in paths:
        tables.append(pd.read_parquet(path))
        try:
            _check(tables[-1])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return pd.concat(tables, ignore_index=True)


def _check(results: pd.DataFrame) -> None:
    if list(results.columns) != COLUMNS:
        raise ValueError(f"results have columns {list(results.columns)}, expected {COLUMNS}")
    allowed = {"split": SPLITS, "task": TASKS, "metric": METRICS, "modality": MODALITIES}
    for column, names in allowed.items():
        if unknown := set(results[column]) - set(names):
            raise ValueError(f"results have {column} {sorted(map(str, unknown))}, expected some of {names}")
    if (empty := results[[*LABELS, "value", "n"]].isna().any()).any():
        raise ValueError(f"results lack values in columns {list(empty[empty].index)}")
    rates = results[~results.metric.isin(COUNTS)]
    outside = ~(rates.value.between(rates.low - 1e-9, rates.high + 1e-9) & rates.value.between(0, 1))
    if outside.any():
        raise ValueError(
            f"{outside.sum()} values lie outside their interval or [0, 1]: {rates[outside].iloc[0].to_dict()}"
        )
