"""A sweep at a glance: every run as a line through its settings and scores, and each setting by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mipnb.figures import save_figure
from mipnb.plotting import PAGE, set_theme

__all__ = ["marginal_figure", "parallel_coordinates", "save_plots"]

SCORES = ["forget", "kept"]
_MOST_TICKS = 8


def parallel_coordinates(table: pd.DataFrame, columns: Sequence[str], colour_by: str, ax: Axes) -> Axes:
    """One line a run across upright axes, one axis a column, each from its smallest value to its largest.

    Args:
        table: one row a run.
        columns: in this order; words get a place each, in the order they come.
        colour_by: the column of numbers that colours the lines.
        ax: where to draw.

    Raises:
        ValueError: fewer than two columns, or no rows.
    """
    if len(columns) < 2 or table.empty:
        raise ValueError(
            f"expected two columns or more and a run or more, got {list(columns)} and {len(table)} runs"
        )
    heights = {name: _heights(table[name]) for name in columns}
    shades = plt.get_cmap("cividis")(_heights(table[colour_by])[0])
    for row, shade in enumerate(shades):
        ax.plot(range(len(columns)), [heights[name][0][row] for name in columns], color=shade, alpha=0.8)
    for at, name in enumerate(columns):
        ax.axvline(at, color="#222222", linewidth=0.7)
        for height, text in heights[name][1].items():
            ax.annotate(
                text, (at, height), xytext=(3, 0), textcoords="offset points", fontsize="x-small", va="center"
            )
    ax.set_xticks(range(len(columns)), columns)
    ax.set(yticks=[], xlim=(-0.1, len(columns) - 0.7), ylim=(-0.06, 1.06))
    ax.spines[:].set_visible(False)
    ax.set_title(f"lighter: larger {colour_by}", fontsize="small", fontweight="normal")
    return ax


def _heights(values: pd.Series) -> tuple[np.ndarray, dict[float, str]]:
    """Each value's height on its axis, 0 to 1, and the heights that are labelled."""
    if _is_number(values):
        low, high = float(values.min()), float(values.max())
        numbers = values.to_numpy(dtype=float)
        marks = sorted(set(numbers)) if values.nunique() <= _MOST_TICKS else [low, high]
    else:
        words = list(dict.fromkeys(map(str, values)))
        numbers, low, high = (
            np.array([words.index(str(value)) for value in values], dtype=float),
            0.0,
            len(words) - 1.0,
        )
        marks = [float(at) for at in range(len(words))]
    span = high - low or 1.0
    shift = 0.0 if high > low else 0.5  # a value that never varies lies in the middle
    texts = [f"{mark:.3g}" if _is_number(values) else words[int(mark)] for mark in marks]
    return (numbers - low) / span + shift, {
        (mark - low) / span + shift: text for mark, text in zip(marks, texts, strict=True)
    }


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def marginal_figure(table: pd.DataFrame, settings: Sequence[str], scores: Sequence[str]) -> Figure:
    """Each score against each setting: a dot a run, and the mean over all runs of the same value.

    Args:
        table: one row a run.
        settings: columns, one column of axes each.
        scores: columns of numbers, one row of axes each.
    """
    size = (max(PAGE / 3, 1.9 * len(settings)), 1.7 * len(scores))
    fig, grid = plt.subplots(len(scores), len(settings), figsize=size, sharey="row", squeeze=False)
    for row, score in zip(grid, scores, strict=True):
        for ax, name in zip(row, settings, strict=True):
            values = list(
                dict.fromkeys(table[name].sort_values() if _is_number(table[name]) else table[name])
            )
            at = [values.index(value) for value in table[name]]
            ax.plot(at, table[score], "o", color="#0072B2", alpha=0.4, markersize=3)
            ax.plot(
                range(len(values)),
                [table[table[name] == value][score].mean() for value in values],
                color="#D55E00",
            )
            ax.set_xticks(range(len(values)), [str(value) for value in values])
        row[0].set_ylabel(score)
    for ax, name in zip(grid[-1], settings, strict=True):
        ax.set_xlabel(name)
    return fig


def save_plots(scores: pd.DataFrame, folder: Path, source: dict[str, Any]) -> list[str]:
    """Draws and saves both figures of a sweep; none without settings that vary or without scores.

    Args:
        scores: from `collect.scores_table`.
        folder: where the files go.
        source: see `figures.save_figure`, without the caption.

    Returns:
        The figures' names.
    """
    found = [name for name in SCORES if name in scores]
    settings = [name for name in scores.columns if name not in ("run", *SCORES)]
    if not found or not settings:
        return []
    set_theme()
    fig, ax = plt.subplots(figsize=(PAGE, 2.6))
    parallel_coordinates(scores, [*settings, *found], found[-1], ax)
    figures = {"sweep_parallel": (fig, "Every run of the sweep: its settings and its scores.")}
    marginal = marginal_figure(scores, settings, found)
    figures["sweep_marginal"] = (marginal, "Scores by each setting: a dot a run, the line their mean.")
    for name, (figure, caption) in figures.items():
        save_figure(figure, name, scores, folder, source | {"caption": caption})
        plt.close(figure)
    return list(figures)
