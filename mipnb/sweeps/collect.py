"""What a sweep found: one tidy table, scores a run, and the best settings by the stated rule."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipnb.artefacts import atomic_path
from mipnb.headline import headline, last_results, means
from mipnb.sweeps.plan import Rule, Sweep, SweepRun
from mipnb.sweeps.worker import finished, trial_files

__all__ = ["best", "results_table", "scores_table", "write_tables"]

RUN, SEED = "run", "seed"


def results_table(sweep: Sweep) -> pd.DataFrame:
    """Every row of every complete run's results, with the parameters that vary in front.

    Returns:
        Columns: the varied parameters that the results do not have anyway (a run that leaves one at its default has
        that), then those of `mipnb.evaluation`, `run` being the sweep's name of it. Empty without such runs.
    """
    parts = []
    for run, file in _with_results(sweep):
        rows = pd.read_parquet(file).assign(**{RUN: run.name})
        if sweep.file.methods:
            rows = rows[rows.method.isin(sweep.file.methods)]
        added = {name: value for name, value in _settings(sweep, run).items() if name not in rows}
        for at, (name, value) in enumerate(added.items()):
            rows.insert(at, name, value)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def scores_table(sweep: Sweep) -> pd.DataFrame:
    """One row a complete run.

    Returns:
        Columns run, the varied parameters, `forget` and `kept`: how often the run is right about the people to forget,
        and about all others. With a rule they are of validation people, of the rule's method, and speak for choosing;
        else they are of the results' first method of `methods` (or `edited`), and do not.
    """
    rule = sweep.file.best
    rows = []
    for run in sweep.runs:
        if finished(sweep.folder / run.name).get("state") == "complete":
            rows.append({RUN: run.name} | _settings(sweep, run) | _scores(sweep, run, rule))
    return pd.DataFrame(rows)


def best(scores: pd.DataFrame, rule: Rule) -> pd.Series:
    """The best settings by a rule, seeds averaged.

    Args:
        scores: from `scores_table`, of validation people.
        rule: see `Rule`.

    Returns:
        The varied parameters without the seed, forget, kept, and n_seeds.

    Raises:
        ValueError: there are no scores.
    """
    if scores.empty or not {"forget", "kept"} <= set(scores):
        raise ValueError("no complete run has scores on validation people: there is nothing to choose from")
    settings = [name for name in scores.columns if name not in (RUN, SEED, "forget", "kept")]
    values = {"forget": ("forget", "mean"), "kept": ("kept", "mean"), "n_seeds": (RUN, "size")}
    if settings:
        table = scores.groupby(settings, sort=False, dropna=False).agg(**values).reset_index()
    else:
        table = pd.DataFrame({name: [scores[column].agg(how)] for name, (column, how) in values.items()})
    forgotten = table[table.forget <= rule.forget_at_most]
    if len(forgotten):
        return forgotten.sort_values(["kept", "forget"], ascending=[False, True], kind="stable").iloc[0]
    return table.sort_values(["forget", "kept"], ascending=[True, False], kind="stable").iloc[0]


def write_tables(sweep: Sweep) -> list[Path]:
    """Writes results.parquet (if there are results) and scores.csv into the sweep's folder, each whole."""
    written, results, scores = [], results_table(sweep), scores_table(sweep)
    if not results.empty:
        with atomic_path(sweep.folder / "results.parquet") as temporary:
            results.to_parquet(temporary, index=False)
        written.append(sweep.folder / "results.parquet")
    with atomic_path(sweep.folder / "scores.csv") as temporary:
        scores.to_csv(temporary, index=False, lineterminator="\n")
    return [*written, sweep.folder / "scores.csv"]


def _with_results(sweep: Sweep) -> list[tuple[SweepRun, Path]]:
    """The complete runs that have results, with their file."""
    complete = [run for run in sweep.runs if finished(sweep.folder / run.name).get("state") == "complete"]
    files = [(run, last_results(sweep.folder / run.name)) for run in complete]
    return [(run, file) for run, file in files if file]


def _settings(sweep: Sweep, run: SweepRun) -> dict:
    """The parameters that vary in the sweep, with the run's values."""
    names = dict.fromkeys(name for other in sweep.runs for name in other.varied)
    return {name: run.varied.get(name, getattr(run.params, name, "")) for name in names}


def _scores(sweep: Sweep, run: SweepRun, rule: Rule | None) -> dict[str, float]:
    """forget and kept of one run."""
    if rule is None:
        file = last_results(sweep.folder / run.name)
        return headline(file, (sweep.file.methods or ["edited"])[0]) if file else {}
    trials = pd.concat(
        [pd.read_parquet(file) for file in trial_files(sweep.folder / run.name, rule).values()]
    )
    of_method = trials[trials.method == rule.method]
    if of_method.empty:
        raise ValueError(f"best: method {rule.method}: the trials have {sorted(set(trials.method))}")
    return means(zip(of_method.split, of_method.value, strict=True))
