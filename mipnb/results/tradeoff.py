"""Fig. 3: what is forgotten against what is kept, every method at every forget ratio, four panels."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mipnb.plotting import METHODS, PAGE
from mipnb.results.measures import NAMES, TASKS, in_order, rates

METRICS = {"VQA": "accuracy", "QA": "accuracy", "VGEN": "ROUGE-L", "GEN": "ROUGE-L"}
#: a shape a method beside its colour
MARKERS = dict(zip(NAMES, "oXsvD^<>Pph8d", strict=True))
#: the part of a panel that is drawn once more
CORNER = (0.88, 1.015)
#: where that may stand (left, bottom, width, height, in shares of the panel), the largest first
_PLACES = [
    (left, bottom, width, height)
    for width, height in ((0.35, 0.5), (0.3, 0.42), (0.24, 0.34))
    for bottom in (0.1, 0.2, 0.3, 0.4)
    for left in (0.13, 0.2, 0.3, 0.4, 0.5)
]


def trade_off_points(results: pd.DataFrame, splits: tuple[str, str]) -> pd.DataFrame:
    """What is drawn: one row a method, task and forget ratio, means over seeds.

    Returns:
        method, forget_ratio, task, drop (vanilla's value on the people to forget minus the method's), retain (the value on
        the people to keep), ideal_drop, ideal_retain: the corner where all is forgotten and all kept.
    """
    table = rates(results, splits)
    vanilla = table[table.method == "vanilla"].set_index(["forget_ratio", "task"])
    at = pd.MultiIndex.from_frame(table[["forget_ratio", "task"]])
    ideal = vanilla.loc[at]
    points = table[["method", "forget_ratio", "task", "retain"]].assign(
        drop=ideal.forget.to_numpy() - table.forget.to_numpy(),
        ideal_drop=ideal.forget.to_numpy(), ideal_retain=ideal.retain.to_numpy(),
    )  # fmt: skip
    return points[points.method != "vanilla"].reset_index(drop=True)


def trade_off_figure(points: pd.DataFrame) -> Figure:
    """Four panels, the corner of each drawn larger; points of a method are joined by forget ratio, and grow with it.

    Args:
        points: from `trade_off_points`.
    """
    fig, axes = plt.subplots(2, 2, figsize=(PAGE, 5.4))
    for ax, task in zip(axes.flat, TASKS, strict=True):
        panel(points[points.task == task], ax)
        _corner(points[points.task == task], ax)
        ax.set_title(task)
        ax.set_xlabel(f"drop on forget, {METRICS[task]}")
        ax.set_ylabel(f"retain, {METRICS[task]}")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=5)
    return fig


def _corner(part: pd.DataFrame, ax: Axes) -> None:
    """The panel's upper right corner once more, larger, where it hides least."""
    ticks, place = [0.9, 0.95, 1.0], min(_PLACES, key=partial(_hidden, part, ax))
    inset = ax.inset_axes(place, xlim=CORNER, ylim=CORNER, xticks=ticks, yticks=ticks)
    panel(part, inset, clipped=True)
    inset.tick_params(labelsize="x-small", length=2, width=0.5)
    ax.indicate_inset_zoom(inset, edgecolor="#888888", linewidth=0.5)


def _hidden(part: pd.DataFrame, ax: Axes, place: tuple[float, float, float, float]) -> int:
    """How many marks, and pieces of lines between them, lie beneath an inset and its labels."""
    x, y, width, height = place
    lines = [
        rows[["drop", "retain"]].to_numpy() for _, rows in part.sort_values("forget_ratio").groupby("method")
    ]
    share = np.linspace(0, 1, 20)[:, None]
    pieces = [a + share * (b - a) for line in lines for a, b in zip(line, [*line[1:], line[-1]], strict=True)]
    at = ax.transAxes.inverted().transform(ax.transData.transform(np.concatenate(pieces)))
    inside = (at > (x - 0.1, y - 0.1)) & (at < (x + width + 0.03, y + height + 0.03))
    return int(inside.all(1).sum())


def panel(part: pd.DataFrame, ax: Axes, clipped: bool = False) -> Axes:
    """One task's points, with the ideal corner (hollow star) of each forget ratio; clipped: only within the axes."""
    ratios = sorted(part.forget_ratio.unique())
    for method in in_order(part.method):
        rows = part[part.method == method].sort_values("forget_ratio")
        sizes = [12 + 14 * ratios.index(ratio) for ratio in rows.forget_ratio]
        ax.plot(rows["drop"], rows.retain, color=METHODS[method], linewidth=0.5, zorder=2)
        ax.scatter(
            rows["drop"], rows.retain, s=sizes, color=METHODS[method], marker=MARKERS[method], linewidth=0.4,
            edgecolor="#222222", label=NAMES[method], zorder=4 if method in ("edited", "retrained") else 3, clip_on=clipped,
        )  # fmt: skip
    corner = part.groupby("forget_ratio")[["ideal_drop", "ideal_retain"]].first()
    ax.scatter(
        corner.ideal_drop, corner.ideal_retain, marker="*", s=90, facecolor="none", edgecolor="#222222",
        linewidth=0.7, label="ideal corner", zorder=5, clip_on=clipped,
    )  # fmt: skip
    return ax
