"""Curves over the number of neurons, with intervals: what silencing them takes, what they keep alone, what edits leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mipnb.evidence.verdicts import Resampled

#: one colour a choice in every figure, safe for the colour-blind (Okabe and Ito 2008)
COLOURS = {
    "path": "#D55E00", "random": "#0072B2", "activation": "#009E73", "manu": "#CC79A7", "lowest": "#999999",
    "first_token": "#E69F00", "permuted_answers": "#56B4E9", "other_people": "#F0E442", "learned": "#222222",
    "run_recipe": "#8B4513",
}  # fmt: skip


def curve_table(
    marks: pd.DataFrame,
    measure: str,
    choices: Sequence[str],
    mark: str = "recall",
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Marks over k, as shares of the untouched model's.

    Args:
        marks: of one branch, one or more units.
        measure: "remove", "keep" or "edit".
        choices: those wanted; one without such marks is left out.
        mark: "recall" or "probability".
        n_resamples, seed: of the bootstrap, see `verdicts`.

    Returns:
        One row a choice, set and k: choice, set, k, value, low, high (95 %).
    """
    found, rows = Resampled(marks, mark, n_resamples, seed), []
    for choice in choices:
        for group in ("forget", "retain"):
            for k in found.steps(measure, choice):
                share = found.mean(group, measure, choice, k) / found.untouched(group)
                low, high = np.quantile(share[1:], [0.025, 0.975])
                rows.append((choice, group, k, share[0], low, high))
    return pd.DataFrame(rows, columns=["choice", "set", "k", "value", "low", "high"])


def curve_panel(table: pd.DataFrame, ax: Axes) -> Axes:
    """One line a choice with its interval, of one k a point with its bar; forget solid, retain dashed or hollow.

    Args:
        table: from `curve_table`.
        ax: where to draw.

    Raises:
        ValueError: there is nothing to draw.
    """
    if table.empty:
        raise ValueError("there is nothing to draw: no choice was measured at any k")
    for (choice, group), part in table.groupby(["choice", "set"], sort=False):
        forget = group == "forget"
        look = {"color": COLOURS[choice], "marker": "o", "label": choice if forget else None}
        if len(part) == 1:
            ax.vlines(part.k, part.low, part.high, COLOURS[choice], "-" if forget else "--", linewidth=1)
            ax.plot(
                part.k, part.value, linestyle="", markersize=4, fillstyle="full" if forget else "none", **look
            )
            continue
        ax.plot(part.k, part.value, linestyle="-" if forget else "--", markersize=2.5, **look)
        ax.fill_between(part.k, part.low, part.high, color=COLOURS[choice], alpha=0.12, linewidth=0)
    steps = sorted(table.k.unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(steps, _apart(steps))
    ax.set(xlabel="neurons per layer", ylabel="share of vanilla's recall", ylim=(-0.02, 1.05))
    return ax


def _apart(steps: list[int], least: float = 1.3) -> list[str]:
    """Labels of ticks on a logarithmic axis; none for one that would run into the label before it."""
    labels, last = [], 0.0
    for step in steps:
        labels.append(str(step) if step >= least * last else "")
        last = step if labels[-1] else last
    return labels


def verdict_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A verdict table for the eye: measures down, controls across, each cell value, control's value, margin, verdict."""
    words = [
        f"{row.value:.2f} / {row.control_value:.2f}; {'×' if row.measure == 'ratio' else ''}{_signed(row)} "
        f"[{row.low:.2f}, {row.high:.2f}]: {row.verdict}"
        for row in table.itertuples()
    ]
    grid = table.assign(cell=words).pivot(index="measure", columns="control", values="cell")
    return grid.loc[list(dict.fromkeys(table.measure)), list(dict.fromkeys(table.control))].fillna("")


def _signed(row) -> str:
    return f"{row.margin:.2f}" if row.measure == "ratio" else f"{row.margin:+.2f}"


def goal_sentences(table: pd.DataFrame, branch: str) -> str:
    """Markdown on the two goals of silencing: 3 x the ratio of random neurons, 1.5 x that of the best point-wise score.

    Args:
        table: from `verdicts.verdict_table`, with the controls "random", "activation" and "manu".
        branch: its name.
    """
    ratios, falls, spared = (
        table[table.measure == measure].set_index("control") for measure in ("ratio", "necessity", "spared")
    )
    best = ratios.loc[["activation", "manu"]].sort_values("control_value").index[-1]
    lines = []
    for control, goal, name in (
        ("random", 3.0, "random neurons"),
        (best, 1.5, f"the best point-wise score ({best})"),
    ):
        row = ratios.loc[control]
        met = (
            "met"
            if row.low >= goal
            else "met on average, not surely"
            if row.margin >= goal
            else "**not met**"
        )
        own, other = (
            f"{row[column]:.2f} ({falls.loc[control, column]:.2f} of forget lost, "
            f"{falls.loc[control, column] - spared.loc[control, column]:.2f} of retain)"
            for column in ("value", "control_value")
        )
        lines.append(
            f"- {branch}: loss on forget per point lost on retain {own}, {name} {other}: "
            f"× {row.margin:.2f} (95 %: {row.low:.2f} to {row.high:.2f}); the goal × {goal:g} is {met}."
        )
    return "\n".join(lines)
