"""The defaults on people that had no say in them: a second pocket benchmark, of another seed, with a model of its own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipnb.artefacts import atomic_path, project_root, read_json, require, under_root
from mipnb.evaluation import read_results
from mipnb.params import Params
from mipnb.report import replace_block
from mipnb.task_names import named_tasks
from mipnb.verdict import verdict

__all__ = ["SECOND", "publish_second", "second_text", "second_verdict"]

SECOND = "data/results/second_pocket.csv"
METHODS = ("edited", "random")
#: what a run on other people may set otherwise; all else is at its default
_FREE = {"run_dir", "benchmark_dir", "retrain"}


def publish_second(run_dir: str) -> list[Path]:
    """Write what came of a run on a second pocket benchmark to data/results and README; returns the files.

    Raises:
        FileNotFoundError: the run has no results.
        ValueError: it is on the shipped people, or other parameters than benchmark_dir and retrain were changed.
    """
    table = second_verdict(under_root(run_dir))
    with atomic_path(under_root(SECOND)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    replace_block(project_root() / "README.md", "second", second_text(table))
    return [under_root(SECOND), project_root() / "README.md"]


def second_verdict(run: Path) -> pd.DataFrame:
    """Every demand on the edit, and on that of random neurons, beside what was measured: `verdict.COLUMNS` after method."""
    results = read_results(require(run / "05_evaluation" / "results.parquet", made_by="05_evaluation"))
    _check(run)
    tables = {method: verdict(results, method) for method in METHODS}
    return pd.concat(tables, names=["method"]).reset_index("method").reset_index(drop=True)


def _check(run: Path) -> None:
    defaults = Params().model_dump()
    for file in sorted(run.glob("0[1-5]_*/params.json")):
        used = read_json(file)
        changed = {k: v for k, v in used.items() if k not in _FREE and v != defaults[k]}
        if changed:
            raise ValueError(f"{file} was made with {changed}; expected the defaults: run it without these")
        if used.get("benchmark_dir", "") == defaults["benchmark_dir"]:
            raise ValueError(
                f"{file}: these are the shipped people; expected others, from `mipnb build-pocket --seed N`"
            )


def second_text(table: pd.DataFrame) -> str:
    """Markdown: how many demands are met, and the scores on the forget people and the least of the others."""
    rows = ["| method | demands met | split | task | metric | measured | demanded |", "|---" * 7 + "|"]
    for method, part in named_tasks(table).groupby("method", sort=False):
        met = f"{int(part.met.sum())} of {len(part)}"
        kept = part[part.demand == "keep"].groupby("split", sort=False).measured.idxmin()
        for row in part.loc[[*part.index[part.demand == "forget"], *kept]].itertuples():
            mark = f"{row.measured:.2f}" if row.met else f"**{row.measured:.3f}**"
            rows.append(
                f"| {method} | {met} | {row.split} | {row.task} | {row.metric} | {mark} | {row.bound} |"
            )
    return "\n".join(rows)
