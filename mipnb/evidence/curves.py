"""Curves over the number of neurons, with intervals: what silencing them takes, what they keep alone, what edits leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

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


def curve_panel(table: pd.DataFrame, ax: Axes, linear: bool = False) -> Axes:
    """One line a choice with its interval, of one k a point with its bar; forget solid, retain dashed or hollow.

    Args:
        table: from `curve_table`.
        ax: where to draw.
        linear: whether the axis of k is; else it is logarithmic.

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
    if linear:
        ax.set_xticks(steps)
    else:
        ax.set_xscale("log", base=2)
        ax.set_xticks(steps, _apart(steps))
    ax.set(xlabel="neurons per layer", ylabel="share of vanilla's recall", ylim=(-0.02, 1.05))
    return ax


def curve_legend(ax: Axes) -> tuple[list[Artist], list[str]]:
    """Handles and labels for a legend of a panel's choices, and of the two sets."""
    handles, labels = ax.get_legend_handles_labels()
    lines = [Line2D([], [], color="black", linestyle=style) for style in ("-", "--")]
    return [*handles, *lines], [*labels, "forget set", "retain set"]


def _apart(steps: list[int], least: float = 1.3) -> list[str]:
    """Labels of ticks on a logarithmic axis; none for one that would run into the label before it."""
    labels, last = [], 0.0
    for step in steps:
        labels.append(str(step) if step >= least * last else "")
        last = step if labels[-1] else last
    return labels
