"""Whole figures of notebooks 04 and 05: several axes side by side, from `plotting`'s single ones."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mipnb.evaluation import aggregate
from mipnb.plotting import MAIN_METRIC, PAGE, task_bars, training_curves

SHOWN = ("vanilla", "prune", "edited", "random")
TITLES = {
    "edited": "located path",
    "random": "random path",
    "test_forget": "forget, unseen view",
    "test_retain": "retain, unseen view",
}


def training_figure(history: pd.DataFrame, smooth: int = 5) -> Figure:
    """The losses of every step, located and random path side by side.

    Args:
        history: columns method, seed, step, loss_forget, loss_retain, loss_ce.
        smooth: width of a running mean, in steps.
    """
    methods = list(dict.fromkeys(history.method))
    fig, axes = plt.subplots(1, len(methods), figsize=(PAGE, 2.6), sharey=True, squeeze=False)
    for ax, method in zip(axes[0], methods, strict=True):
        training_curves(history[history.method == method], ax, smooth)
        ax.get_legend().remove()
        ax.set_title(TITLES.get(method, method))
        ax.set_ylabel("loss" if ax is axes[0, 0] else "")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3)
    return fig


def bars_table(results: pd.DataFrame, splits: Sequence[str], methods: Sequence[str] = SHOWN) -> pd.DataFrame:
    """The rows that `bars_figure` draws: means over seeds of each task's main metric, in the order of `methods`."""
    means = aggregate(results)
    main = means.task.map(MAIN_METRIC) == means.metric
    table = means[main & means.split.isin(splits) & means.method.isin(methods)]
    return table.sort_values("method", key=lambda column: column.map(list(methods).index), kind="stable")


def bars_figure(
    results: pd.DataFrame, splits: Sequence[str] = ("forget", "retain"), methods: Sequence[str] = SHOWN
) -> Figure:
    """Before and after, one panel a split: a group of bars a task, a bar a method.

    Args:
        results: the tidy table, vanilla among its methods.
        splits: the panels, at most two beside each other; those without results are left out.
        methods: those shown, in this order.
    """
    table = bars_table(results, splits, methods)
    splits = [split for split in splits if split in set(table.split)]
    n_rows = (len(splits) + 1) // 2
    size = (PAGE, 2.3 * n_rows + 0.3)
    fig, axes = plt.subplots(n_rows, min(2, len(splits)), figsize=size, sharey=True, squeeze=False)
    for ax, split in zip(axes.flat, splits, strict=False):
        task_bars(table[table.split == split], ax)
        ax.set_title(TITLES.get(split, split))
        ax.set_ylabel("accuracy, ROUGE-L" if ax in axes[:, 0] else "")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return fig
