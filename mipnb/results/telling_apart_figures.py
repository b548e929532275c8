"""The figure of notebook 11 and the sentences that read it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mipnb.plotting import METHODS, PAGE
from mipnb.results.measures import NAMES
from mipnb.results.residuals import named

MODALITY = {"image_text": "image questions", "text": "text questions"}


def apart_figure(table: pd.DataFrame, measure: str = "auc") -> Figure:
    """One line a method, one panel a modality: the classifier's value, its interval, what permuted labels give.

    Args:
        table: from `telling_apart.summary`.
        measure: "auc" or "accuracy".
    """
    part = table[table.measure == measure]
    kinds, count = [k for k in MODALITY if k in set(part.modality)], part.method.nunique()
    fig, axes = plt.subplots(1, len(kinds), figsize=(PAGE, 0.2 * count + 1.1), sharey=True, squeeze=False)
    for ax, kind in zip(axes[0], kinds, strict=True):
        apart_panel(part[part.modality == kind], ax).set_title(MODALITY[kind])
        ax.set_xlabel("area under the ROC curve" if measure == "auc" else "balanced accuracy")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=3, loc="outside lower center")
    return fig


def apart_panel(part: pd.DataFrame, ax: Axes) -> Axes:
    """Values with intervals over people; a grey bar from chance to the 95th percentile of permuted labels."""
    places = np.arange(len(part))
    colours = [METHODS.get(method, "#666666") for method in part.method]
    ends = (part.chance_high - part.chance).clip(lower=0)
    ax.barh(places, ends, 0.7, left=part.chance, color="#DDDDDD", label="permuted labels, mean to 95 %")
    errors = [(part.value - part.low).clip(lower=0), (part.high - part.value).clip(lower=0)]
    ax.errorbar(part.value, places, xerr=errors, fmt="none", ecolor=colours, elinewidth=0.9)
    ax.scatter(part.value, places, c=colours, s=16, zorder=3, label="classifier, 95 % over people")
    retrained = part[part.method == "retrained"]
    if len(retrained):
        ax.axvline(retrained.value.iloc[0], color="#000000", linewidth=0.7, linestyle="--", label="retrained")
    ax.axvline(0.5, color="#888888", linewidth=0.6, linestyle=":")
    ax.set_yticks(places, named(part.method))
    ax.set(xlim=(min(0.3, part.low.min() - 0.02), 1.02), ylim=(len(part) - 0.5, -0.5))
    return ax


def risk_sentences(table: pd.DataFrame, measure: str = "auc", reference: str = "retrained") -> str:
    """Markdown: who betrays whom it forgot, more than a model that never knew them; then what vanilla and ours give."""
    lines = []
    for modality, part in table[table.measure == measure].groupby("modality", sort=False):
        rows = part.set_index("method")
        risky = [
            f"{NAMES[name]} ({row.value:.2f}, {row.risk:+.2f} [{row.risk_low:+.2f}, {row.risk_high:+.2f}])"
            for name, row in rows.iterrows() if row.risk_low > 0
        ]  # fmt: skip
        base = f"{rows.value[reference]:.2f}" if reference in rows.index else "not measured"
        told = ", ".join(risky) if risky else "none"
        lines.append(
            f"- **{MODALITY[modality]}**: the retrained model is told at {base}. More telling, with intervals above 0: {told}. "
            f"{_one(rows, 'vanilla')} {_one(rows, 'edited')}"
        )
    return "\n".join(lines)


def _one(rows: pd.DataFrame, method: str) -> str:
    if method not in rows.index:
        return ""
    row = rows.loc[method]
    told = "above" if row.value > row.chance_high else "no better than"
    interval = f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
    return (
        f"{NAMES[method].capitalize()}: {interval}, {told} permuted labels ({row.chance_high:.2f} at 95 %)."
    )
