"""The workbook's figures: a tidy table in, an axes out. One theme, one colour a method, a paper's widths.

Saving is in `mipnb.figures`, pages of people in `mipnb.people`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from mipnb.task_names import task_name

#: inches: one column of the paper, and its whole width
COLUMN, PAGE = 3.3, 7.0
#: colour-blind safe (Okabe and Ito 2008); one colour a method in every figure
METHODS = {
    "vanilla": "#999999",
    "prune": "#56B4E9",
    "edited": "#D55E00",
    "random": "#0072B2",
    "retrained": "#000000",
    "ga_diff": "#E69F00",
    "kl_min": "#F0E442",
    "npo": "#009E73",
    "manu": "#CC79A7",
    "idk": "#882255",
    "rmu": "#332288",
    "rmu_adaptive": "#44AA99",
    "mmunlearner": "#999933",
    "depn": "#661100",
}
_SPARE = ("#AA4499", "#117733", "#88CCEE", "#DDCC77", "#6699CC", "#994455")
#: the metric that a task is known by
MAIN_METRIC = {
    "VQA": "accuracy",
    "QA": "accuracy",
    "VGEN": "rougeL",
    "GEN": "rougeL",
    "CLOZE_VQA": "accuracy",
    "CLOZE_QA": "accuracy",
}
LOSS_NAMES = {"loss_forget": "forget, $L_f$", "loss_retain": "retain, $L_r$", "loss_ce": "answers, $L_{CE}$"}


def set_theme() -> None:
    """Set seaborn's and matplotlib's look once, for figures legible at a paper's width."""
    sns.set_theme(context="paper", style="ticks", font="DejaVu Sans", font_scale=0.8)
    mpl.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "legend.frameon": False,
            "lines.linewidth": 1.2,
        }
    )


def colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each method: its own, or for an unknown one a spare that depends on its name alone.

    Raises:
        ValueError: two unknown methods would get one colour.
    """
    found = {name: METHODS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)] for name in methods}
    if len(set(found.values())) < len(found):
        raise ValueError(
            f"methods {list(found)} share a colour: give the new ones their own in plotting.METHODS"
        )
    return found


def task_bars(results: pd.DataFrame, ax: Axes, metrics: dict[str, str] | None = None) -> Axes:
    """One group of bars a task, one bar a method, with 95 % intervals.

    Args:
        results: rows of one split with columns task, method, metric, value, low, high, averaged over seeds.
        ax: where to draw.
        metrics: task -> the metric shown; by default accuracy, and ROUGE-L for generation.

    Raises:
        ValueError: no rows to draw, or several for one bar (more than one split, seed, model or forget
            ratio).
    """
    chosen = MAIN_METRIC if metrics is None else metrics
    table = results[
        [chosen.get(task) == metric for task, metric in zip(results.task, results.metric, strict=True)]
    ]
    _one_row_each(table, ["task", "method"])
    tasks = [task for task in chosen if task in set(table.task)]
    methods = list(dict.fromkeys(table.method))
    width = 0.8 / len(methods)
    for index, (method, colour) in enumerate(colours(methods).items()):
        rows = table[table.method == method].set_index("task").reindex(tasks)
        at = np.arange(len(tasks)) + (index - (len(methods) - 1) / 2) * width
        ax.bar(at, rows.value, width * 0.92, color=colour, label=method)
        ends = [(rows.value - rows.low).clip(lower=0), (rows.high - rows.value).clip(lower=0)]
        ax.errorbar(at, rows.value, ends, fmt="none", ecolor="#222222", elinewidth=0.7, capsize=1.2)
    ax.set_xticks(range(len(tasks)), [task_name(task) for task in tasks])
    ax.set(ylim=(0, 1.05), ylabel="accuracy, ROUGE-L" if metrics is None else "score")
    return ax


def _one_row_each(table: pd.DataFrame, keys: Sequence[str]) -> None:
    if table.empty:
        raise ValueError("there is nothing to draw: the table has no rows of the metrics asked for")
    if (repeated := table.duplicated(list(keys))).any():
        example = table.loc[repeated, list(keys)].iloc[0].to_dict()
        raise ValueError(
            f"several rows for {example}: choose one split, model and forget ratio, and average seeds"
        )


def score_table(values: np.ndarray | Sequence, name: str = "score") -> pd.DataFrame:
    """A (layers, neurons) array as a tidy table: layer, neuron (both from 0), and the values."""
    values = np.asarray(values, dtype=float)
    layers, neurons = np.indices(values.shape)
    return pd.DataFrame({"layer": layers.ravel(), "neuron": neurons.ravel(), name: values.ravel()})


def score_map(
    table: pd.DataFrame, ax: Axes, value: str = "score", order: str = "neuron", label: str = ""
) -> Axes:
    """A layer x neuron map: blue to red around 0 where values have both signs, else light to dark.

    Args:
        table: columns layer, neuron and `value`; every neuron of every layer once.
        ax: where to draw.
        value: the column shown.
        order: "neuron", or "rank": each layer's values sorted, largest first.
        label: of the colour bar; by default the column's name.
    """
    grid = table.pivot(index="layer", columns="neuron", values=value)  # (layers, neurons)
    values = grid.to_numpy()
    if order == "rank":
        values = -np.sort(-values, axis=1)
    image = ax.imshow(values, aspect="auto", interpolation="nearest", **_colouring(values))
    ax.set_yticks(range(len(grid)), grid.index)
    ax.set(xlabel="neuron" if order == "neuron" else "rank in its layer", ylabel="layer")
    ax.figure.colorbar(image, ax=ax, label=label or value, pad=0.02)
    return ax


def _colouring(values: np.ndarray) -> dict:
    """Colour map and limits; these leave out the outermost 0.5 %, lest one neuron hide the others."""
    low, high = np.nanquantile(values, [0.005, 0.995])
    if low < 0 < high:
        limit = max(-low, high)
        return {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0, -limit, limit)}
    return {"cmap": "cividis", "vmin": low, "vmax": high if high > low else low + 1}


def overlap_matrix(table: pd.DataFrame, ax: Axes, value: str = "overlap") -> Axes:
    """How much paths share: a matrix with its numbers written in.

    Args:
        table: columns row, column, and `value` between 0 and 1; the order of first appearance is kept.
        ax: where to draw.
        value: the column shown.
    """
    grid = table.pivot(index="row", columns="column", values=value)
    grid = grid.loc[list(dict.fromkeys(table["row"])), list(dict.fromkeys(table["column"]))]
    sns.heatmap(
        grid, ax=ax, vmin=0, vmax=1, cmap="cividis", annot=grid.size <= 100, fmt=".2f", square=True,
        linewidths=0.5, annot_kws={"fontsize": "x-small"}, cbar_kws={"label": value, "shrink": 0.6},
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(axis="x", rotation=90)
    return ax


def training_curves(history: pd.DataFrame, ax: Axes, smooth: int = 1) -> Axes:
    """The three losses against the step, logarithmic; several seeds as a mean and a band of their range.

    Args:
        history: columns step, loss_forget, loss_retain, loss_ce; with several seeds, the steps repeat.
        ax: where to draw.
        smooth: width of a running mean, in steps.
    """
    for (name, label), colour in zip(LOSS_NAMES.items(), ("#D55E00", "#0072B2", "#009E73"), strict=True):
        by_step = history.groupby("step")[name].agg(["mean", "min", "max"])
        by_step = by_step.rolling(smooth, min_periods=1, center=True).mean()
        ax.plot(by_step.index, by_step["mean"], color=colour, label=label)
        ax.fill_between(by_step.index, by_step["min"], by_step["max"], color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="step", ylabel="loss", yscale="log")
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def trade_off(comparison: pd.DataFrame, ax: Axes) -> Axes:
    """Forgetting rate against retention, one point a method; the ideal corner is top right.

    Args:
        comparison: columns method, forgetting_rate, retention: one row a method.
        ax: where to draw.
    """
    _one_row_each(comparison, ["method"])
    for method, colour in colours(comparison.method).items():
        row = comparison[comparison.method == method].iloc[0]
        ax.scatter(
            row.forgetting_rate, row.retention, color=colour, s=28, label=method, zorder=3, clip_on=False
        )
    ax.scatter(1, 1, marker="*", s=70, facecolor="none", edgecolor="#222222", linewidth=0.7, clip_on=False)
    ax.set(xlabel="forgetting rate", ylabel="retention", xlim=(-0.05, 1.05), ylim=(0, 1.08))
    return ax
