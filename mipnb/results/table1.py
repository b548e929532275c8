"""Table 1 as it is shown, ours above and the paper's own below, and figures of the paper that look odd."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mipnb.artefacts import project_root
from mipnb.results.measures import COLUMNS, NAMES, best, in_order

MARK = "†"


def shown(means: pd.DataFrame) -> str:
    """Markdown: a row a method, a column a task and set; value ± half of the interval over seeds, the best in bold.

    Args:
        means: from `measures.seed_means`.
    """
    marked = best(means)
    cells = {
        (row.method, row.column): _cell(row, (row.method, row.column) in marked) for row in means.itertuples()
    }
    columns = [column for column in COLUMNS if column in set(means.column)]
    lines = [f"| method | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for method in dict.fromkeys(means.method):
        row = [cells.get((method, column), "") for column in columns]
        lines.append(f"| {NAMES[method]} | {' | '.join(row)} |")
    return "\n".join(lines)


def _cell(row, is_best: bool) -> str:
    text = f"{row.value:.3f}" if is_best is False else f"**{row.value:.3f}**"
    return text if pd.isna(row.half) else f"{text} ± {row.half:.3f}"


def published(folder: str | Path = "data/published") -> pd.DataFrame:
    """The paper's Table 1 with its odd values named.

    Returns:
        Columns of table1.csv, then column (FVQA ...) and odd: why a value is odd, or "".
    """
    folder = project_root() / folder
    table, ablation = (pd.read_csv(folder / f"{name}.csv") for name in ("table1", "table2"))
    table["column"] = table.split.str[0].str.upper() + table.task
    keys = ["model", "benchmark", "column"]
    vanilla = table[table.method == "Vanilla"].set_index(keys).value
    ours = ablation[ablation.variant == "Ours"].assign(
        column=lambda rows: rows.split.str[0].str.upper() + rows.task
    )
    again = ours.set_index(keys).value
    table["odd"] = [_odd(row, vanilla, again) for row in table.itertuples()]
    return table


def _odd(row, vanilla: pd.Series, again: pd.Series) -> str:
    """Why a value is odd: forgotten things known far better than before, or another value for the same in Table 2."""
    cell = (row.model, row.benchmark, row.column)
    if row.split == "forget" and row.value > 1.5 * vanilla[cell]:
        return f"after unlearning {row.value:.4f}, before {vanilla[cell]:.4f}"
    if row.method == "MIP-Editor" and cell in again.index and abs(again[cell] - row.value) > 1e-6:
        return f"{row.value:.4f} here, {again[cell]:.4f} in the paper's Table 2"
    return ""


def published_shown(table: pd.DataFrame) -> str:
    """Markdown of the paper's rows, a row a model, benchmark and method; odd values marked, and said below."""
    lines = [f"| the paper's | | | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|"]
    for (model, benchmark, method), rows in table.groupby(["model", "benchmark", "method"], sort=False):
        cells = {row.column: f"{row.value:.3f}{MARK if row.odd else ''}" for row in rows.itertuples()}
        values = " | ".join(cells.get(column, "") for column in COLUMNS)
        lines.append(f"| {model} | {benchmark} | {method} | {values} |")
    odd = [f"{r.model}, {r.benchmark}, {r.column}: {r.odd}" for r in table[table.odd != ""].itertuples()]
    return "\n".join(lines) + f"\n\n{MARK} as printed, and odd: {'; '.join(odd)}."


def flat_rates(table: pd.DataFrame) -> pd.DataFrame:
    """`measures.rate_table` with one row of column names, the method among them."""
    return (
        table.set_axis([" ".join(pair) for pair in table.columns], axis=1).rename_axis("method").reset_index()
    )


def rates_shown(table: pd.DataFrame) -> str:
    """Markdown of `measures.rate_table`."""
    flat = flat_rates(table)
    lines = [f"| {' | '.join(flat.columns)} |", "|---" * len(flat.columns) + "|"]
    lines += [f"| {row[0]} | {' | '.join(f'{value:.3f}' for value in row[1:])} |" for row in flat.to_numpy()]
    return "\n".join(lines)


def unanswered(results: pd.DataFrame, ratio: int) -> str:
    """Markdown: how many of the answers about people to forget name none of the four options, method by method."""
    rows = results[(results.metric == "n_unparsed") & (results.forget_ratio == ratio)]
    rows = rows[rows.split.isin(("forget", "test_forget")) & rows.task.isin(("VQA", "QA"))]
    sums = rows.groupby("method")[["value", "n"]].sum()
    told = ", ".join(f"{NAMES[name]} {sums.value[name] / sums.n[name]:.0%}" for name in in_order(sums.index))
    return (
        f"Of the VQA and QA answers about people to forget, so many name none of the four options, or several: {told}. Such an "
        "answer is counted as wrong: that is how a method falls below a guess's quarter. What it gives away is looked at in "
        "notebook 11."
    )
