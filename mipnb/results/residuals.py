"""Fig. 6: how far each method moves the FFN activations from the vanilla model's, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mipnb.artefacts import require
from mipnb.plotting import PAGE
from mipnb.results.measures import NAMES

COLUMNS = ["method", "seed", "forget_ratio", "branch", "layer", "split", "modality", "activation", "value"]
#: column of notebook 06 -> what it is
MEASURES = {"activation": "mean |activation - vanilla|", "value": "|output - vanilla| / |vanilla|"}
#: split, modality of the four panels
PANELS = (("forget", "image_text"), ("retain", "image_text"), ("forget", "text"), ("retain", "text"))
#: methods that come last in every figure, in this order; "edited" is ours
LAST = ("prune", "random", "edited", "retrained")


def read_table(path: str | Path, columns: Sequence[str], forget_ratio: int) -> pd.DataFrame:
    """A table of notebook 06 at one forget ratio.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: a column is missing, or there are no rows of the ratio.
    """
    table = pd.read_parquet(require(path, made_by="06_baselines"))
    if lacking := [name for name in columns if name not in table]:
        raise ValueError(f"{path} lacks the columns {lacking}; it has {list(table.columns)}")
    chosen = table[table.forget_ratio == forget_ratio]
    if chosen.empty:
        found = sorted(table.forget_ratio.unique().tolist())
        raise ValueError(f"{path} has no rows of forget_ratio {forget_ratio}; it has {found}")
    return chosen.reset_index(drop=True)


def in_order(methods: Sequence[str]) -> list[str]:
    """Methods as figures list them: vanilla, baselines in the order of Table 1, then LAST."""
    names = set(methods)
    middle = [name for name in NAMES if name in names and name not in (*LAST, "vanilla")]
    others = sorted(names - {*NAMES, *LAST})
    return [name for name in ("vanilla", *middle, *others, *LAST) if name in names]


def named(methods: Sequence[str]) -> list[str]:
    """What tables and figures call methods."""
    return [NAMES.get(method, method) for method in methods]


def residual_means(table: pd.DataFrame, measure: str = "activation") -> pd.DataFrame:
    """Means over seeds, vanilla (whose residual is 0) left out.

    Args:
        table: columns COLUMNS, means over positions.
        measure: a name of MEASURES: the paper's mean over neurons of |z - z_vanilla|, or how far the FFN's output has moved as
            a share of its length, which can be compared between layers.

    Returns:
        branch, split, modality, method, layer, value, sd (between seeds), n_seeds.
    """
    keys = ["branch", "split", "modality", "method", "layer"]
    moved = table[table.method != "vanilla"]
    found = moved.groupby(keys, sort=False).agg(
        value=(measure, "mean"), sd=(measure, "std"), n_seeds=("seed", "nunique")
    )
    return found.reset_index()


def residual_figure(means: pd.DataFrame, branch: str, measure: str = "activation") -> Figure:
    """Method x layer, one colour scale for all panels: forget beside retain, a row of panels a modality.

    Args:
        means: from `residual_means`.
        branch: "text" or "vision"; vision FFNs see no text questions, so they have one row of panels.
        measure: what the means are of, a name of MEASURES.

    Raises:
        ValueError: no rows of the branch.
    """
    part = means[means.branch == branch]
    if part.empty:
        raise ValueError(f"no residuals of branch {branch!r}; there are {sorted(means.branch.unique())}")
    panels = [panel for panel in PANELS if not _panel(part, *panel).empty]
    n_rows, methods = -(-len(panels) // 2), in_order(part.method)
    height = (0.17 * len(methods) + 0.55) * n_rows + 0.3
    fig, axes = plt.subplots(n_rows, 2, figsize=(PAGE, height), squeeze=False, sharey=True)
    scale = _scale(part.value)
    for ax, (split, modality) in zip(axes.flat, panels, strict=False):
        image = heat_map(_panel(part, split, modality), methods, ax, scale)
        ax.set_title(f"{split}, {modality.replace('_', '-')} questions")
    fig.colorbar(image, ax=axes, label=MEASURES[measure], shrink=0.8, pad=0.02)
    return fig


def _panel(part: pd.DataFrame, split: str, modality: str) -> pd.DataFrame:
    return part[(part.split == split) & (part.modality == modality)]


def _scale(values: pd.Series) -> LogNorm:
    """Logarithmic, from the smallest value above 0, but no more than four orders of magnitude."""
    top = values.max() if (values > 0).any() else 1.0
    low = max(values[values > 0].min() if (values > 0).any() else top / 10, top / 1e4)
    return LogNorm(low if low < top else top / 10, top)


def heat_map(part: pd.DataFrame, methods: Sequence[str], ax: Axes, scale: LogNorm):
    """One panel; a number of two digits in each cell, as long as there are few layers. 0 is drawn as the lowest value."""
    grid = part.pivot(index="method", columns="layer", values="value").reindex(methods)
    shown = np.maximum(grid.to_numpy(dtype=float), scale.vmin)
    image = ax.imshow(shown, aspect="auto", cmap="cividis", norm=scale, interpolation="nearest")
    ax.set_xticks(range(grid.shape[1]), grid.columns)
    ax.set_yticks(range(len(methods)), named(methods))
    ax.set_xlabel("layer")
    if grid.shape[1] <= 8:
        for (row, column), value in np.ndenumerate(grid.to_numpy(dtype=float)):
            dark = scale(max(value, scale.vmin)) < 0.6
            ax.text(
                column, row, f"{value:.2g}", ha="center", va="center", fontsize=6, color="w" if dark else "k"
            )
    return image


def selectivity(means: pd.DataFrame) -> pd.DataFrame:
    """Residual on the forget set over that on the retain set, mean over layers: a row a method, a column a branch, modality."""
    wide = means.pivot_table(index=["branch", "modality", "method", "layer"], columns="split", values="value")
    sums = wide.groupby(level=["branch", "modality", "method"], sort=False).mean()
    ratio = (sums.forget / sums.retain.where(sums.retain > 0)).unstack(["branch", "modality"])
    return ratio.loc[in_order(ratio.index)]


def residual_sentences(means: pd.DataFrame, ours: str = "edited") -> str:
    """Markdown: which method moves the forget set most for each unit it moves the retain set, and where ours stands."""
    lines = []
    for (branch, modality), column in selectivity(means).items():
        known = column.dropna()
        if known.empty:
            continue
        best, place = known.idxmax(), int((known > known.get(ours, np.inf)).sum()) + 1
        told = (
            f"ours {known[ours]:.2f}, place {place} of {len(known)}"
            if ours in known
            else "ours was not measured"
        )
        lines.append(
            f"- {branch} FFNs, {modality.replace('_', '-')} questions: forget moves {known[best]:.2f} times as far as retain "
            f"with {NAMES[best]}, the most of all; {told}."
        )
    return "\n".join(lines)
