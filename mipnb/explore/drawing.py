"""What exploring shows, as figures: the same functions draw the static figures and those inside widgets."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mipnb.batches import decode_image
from mipnb.explore.neurons import NeuronReport
from mipnb.plotting import METHODS

_TABLE_STYLE = (
    "<style>.mipnb-table{border-collapse:collapse;margin:2px 0 8px;line-height:1.3}"
    ".mipnb-table th,.mipnb-table td{text-align:left !important;vertical-align:top;padding:3px 16px 3px 0}"
    ".mipnb-table thead tr:last-child th{border-bottom:1px solid currentColor}</style>"
)
#: one colour a set, that of the method which it is judged by
SETS = {"forget": METHODS["edited"], "retain": METHODS["random"]}


def path_graph(nodes: pd.DataFrame, lines: pd.DataFrame, ax: Axes) -> Axes:
    """One branch's path: layers left to right, a layer's best neuron on top, lines as wide as their joint score.

    Args:
        nodes, lines: from `path_nodes`, `path_lines`, of one branch.
        ax: where to draw.
    """
    ranks = rank_in_layer(nodes)
    at = dict(zip(zip(nodes.layer, nodes.neuron, strict=True), ranks, strict=True))
    ends = [
        [(row.layer, -at[row.layer, row.neuron]), (row.layer + 1, -at[row.layer + 1, row.above])]
        for row in lines.itertuples()
    ]
    ax.add_collection(
        LineCollection(ends, linewidths=4 * lines.width**2, colors="#999999", alpha=0.6, zorder=1)
    )
    shown = ax.scatter(nodes.layer, -ranks, c=nodes.share, s=34, cmap="cividis", vmin=0, vmax=1, zorder=2)
    for layer, neuron, rank in zip(nodes.layer, nodes.neuron, ranks, strict=True):
        ax.annotate(
            str(neuron), (layer, -rank), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=6
        )
    ax.set_xticks(sorted(nodes.layer.unique()))
    ax.set(yticks=[], xlabel="layer", ylabel="rank in its layer", ylim=(-ranks.max() - 0.6, 0.8))
    ax.figure.colorbar(shown, ax=ax, label="score, of the largest", pad=0.02)
    return ax


def rank_in_layer(nodes: pd.DataFrame) -> pd.Series:
    """A neuron's place within its layer, 0 for the highest score."""
    return nodes.groupby(["branch", "layer"]).cumcount()


def token_bars(tokens: pd.DataFrame, ax: Axes) -> Axes:
    """A language neuron over the words of a question and its answer; picture tokens are left out (they are on the portrait)."""
    words = tokens[tokens.kind != "picture"].reset_index(drop=True)
    colours = words.kind.map({"prompt": "#999999", "answer": SETS["forget"]})
    ax.bar(words.index, words.activation, color=colours)
    ax.axhline(0, color="#222222", linewidth=0.5)
    labels = words.token.str.strip().str.replace(r"^$", "·", regex=True).str.slice(0, 14)
    ax.set_xticks(words.index, labels.str.replace("$", r"\$"), rotation=90, fontsize=6)
    ax.set(ylabel="activation", xlim=(-0.6, len(words) - 0.4))
    return ax


def patch_map(patches: np.ndarray, portrait: bytes, ax: Axes) -> Axes:
    """A neuron over a picture's patches, (rows, columns), laid on the portrait: blue below zero, red above."""
    picture = decode_image(portrait)
    extent = (0, picture.width, picture.height, 0)
    limit = max(float(np.abs(patches).max()), 1e-9)
    ax.imshow(picture.convert("L"), cmap="gray", extent=extent)
    shown = ax.imshow(patches, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.55, extent=extent)
    ax.set(xticks=[], yticks=[])
    ax.figure.colorbar(shown, ax=ax, label="activation", pad=0.02)
    return ax


def neuron_figure(report: NeuronReport, portrait: bytes | None, fig: Figure) -> Figure:
    """A report's activations: over tokens, and on the portrait, as far as there are any."""
    over_tokens, on_picture = len(report.tokens) > 0, report.patches is not None and portrait is not None
    ratios = [3] * over_tokens + [1] * on_picture
    axes = iter(np.atleast_1d(fig.subplots(1, len(ratios), width_ratios=ratios)))
    if over_tokens:
        token_bars(report.tokens, next(axes))
    if on_picture:
        patch_map(report.patches, portrait, next(axes))
    fig.suptitle(f"{report.branch} branch, layer {report.layer}, neuron {report.neuron}", fontsize="small")
    return fig


def dial_curve(points: pd.DataFrame, ax: Axes, measure: str = "probability") -> Axes:
    """A score of both sets over the edit's strength; `points` from `dial_point`, in any order."""
    for group, part in points.sort_values("strength").groupby("set", sort=False):
        ax.plot(part.strength, part[measure], marker="o", markersize=3, color=SETS.get(group), label=group)
    ax.set(xlabel="strength of the edit", ylabel=measure, xlim=(-0.03, 1.03), ylim=(-0.03, 1.05))
    ax.legend()
    return ax


def loss_curves(curves: pd.DataFrame, ax: Axes) -> Axes:
    """The whole loss over the steps of editing, a line a run (mean over its edits)."""
    for run, part in curves.groupby("run", sort=False):
        mean = part.groupby("step").loss.mean()
        ax.plot(mean.index, mean, label=run)
    ax.set(xlabel="step", ylabel="loss", yscale="log")
    if len(curves):
        ax.legend()
    return ax


def png(fig: Figure, dpi: int = 100) -> bytes:
    """A figure as PNG, for a widget."""
    written = io.BytesIO()
    fig.savefig(written, format="png", dpi=dpi)
    return written.getvalue()


def blank(width: float, height: float) -> Figure:
    """An empty figure in inches, apart from pyplot, so that threads may draw it."""
    return Figure(figsize=(width, height), layout="constrained")


def html_table(table: pd.DataFrame, digits: int = 3, classes: Sequence[str] = ()) -> str:
    """A table for a widget, its text escaped and whole."""
    with pd.option_context("display.max_colwidth", None):
        return _TABLE_STYLE + table.to_html(
            float_format=lambda value: f"{value:.{digits}f}", na_rep="", border=0, index_names=False,
            classes=["mipnb-table", *classes],
        )  # fmt: skip


def line(text: str) -> str:
    """One line of text for a widget, escaped."""
    return html.escape(" ".join(str(text).split()))
