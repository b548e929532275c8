"""The curves of notebook 12: forgetting rate and retention over each setting's values, the default among them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import BaseModel

from mipnb.evaluation import compare
from mipnb.plotting import MAIN_METRIC, PAGE
from mipnb.results.sensitivity import default_of

#: settings in the order of the panels
LABELS = {
    "top_k": "top_k (language layers)", "n_steps": "m", "layer_index": "layer", "steering_scale": r"$\lambda$",
    "retain_weight": r"$\gamma$", "edit_steps": "steps",
}  # fmt: skip


def curve_points(default: pd.DataFrame, varied: pd.DataFrame, params: BaseModel) -> pd.DataFrame:
    """Forgetting rate and retention of every variation, means over tasks, the default among them.

    Args:
        default: from `default_results`.
        varied: from `varied_results`, of all variations.
        params: of the run.

    Returns:
        parameter, value, default (bool), forgetting, retention, forgetting_unseen, retention_unseen; by value.
    """
    vanilla, own = (default[default.method == name] for name in ("vanilla", "edited"))
    rows = []
    for parameter in dict.fromkeys(varied.parameter):
        rows.append((parameter, default_of(params, parameter), True, *_means(vanilla, own)))
        for value, part in varied[varied.parameter == parameter].groupby("value_of"):
            rows.append(
                (parameter, value, False, *_means(vanilla, part.drop(columns=["parameter", "value_of"])))
            )
    names = ["forgetting", "retention", "forgetting_unseen", "retention_unseen"]
    table = pd.DataFrame(rows, columns=["parameter", "value", "default", *names])
    order = table.parameter.map(list(LABELS).index)
    return (
        table.assign(order=order).sort_values(["order", "value"]).drop(columns="order").reset_index(drop=True)
    )


def _means(vanilla: pd.DataFrame, results: pd.DataFrame) -> tuple[float, ...]:
    table = compare(pd.concat([vanilla, results]))
    table = table[(table.task.map(MAIN_METRIC) == table.metric) & (table.method != "vanilla")].set_index(
        "split"
    )
    return tuple(
        float(table.loc[[split], column].mean())
        for split, column in (
            ("forget", "forgetting_rate"), ("retain", "retention"), ("test_forget", "forgetting_rate"),
            ("test_retain", "retention"),
        )
    )  # fmt: skip


def sensitivity_figure(points: pd.DataFrame) -> Figure:
    """A panel a setting: forgetting rate and retention over its values, unseen views dashed, the default marked."""
    names = list(dict.fromkeys(points.parameter))
    n_rows = -(-len(names) // 3)
    fig, axes = plt.subplots(n_rows, 3, figsize=(PAGE, 1.9 * n_rows + 0.4), sharey=True, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        sensitivity_panel(points[points.parameter == name], ax).set_xlabel(LABELS[name])
    low = points[["forgetting", "retention", "forgetting_unseen", "retention_unseen"]].min(axis=None)
    axes[0, 0].set_ylim(max(0, low - 0.05), 1.02)
    fig.supylabel("share of vanilla's marks", fontsize="small")
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=5, loc="outside lower center")
    return fig


def sensitivity_panel(part: pd.DataFrame, ax: Axes) -> Axes:
    """Values stand at equal distances, so that 0 and powers of 2 fit one axis."""
    places = range(len(part))
    for name, colour in (("forgetting", "#D55E00"), ("retention", "#0072B2")):
        ax.plot(places, part[name], color=colour, marker="o", markersize=3, label=name)
        ax.plot(
            places,
            part[f"{name}_unseen"],
            color=colour,
            linestyle="--",
            linewidth=0.9,
            label=f"{name}, unseen views",
        )
    ax.axvline(list(part.default).index(True), color="#888888", linewidth=4, alpha=0.25, label="default")
    ax.set_xticks(places, [f"{value:.3g}" for value in part.value])
    return ax


def sensitivity_sentences(points: pd.DataFrame) -> str:
    """Markdown: how far each setting moves the result, and whether a value does better than the default."""
    lines = []
    for name, part in points.groupby("parameter", sort=False):
        own = part[part.default].iloc[0]
        span = {column: part[column].max() - part[column].min() for column in ("forgetting", "retention")}
        better = part[(part.forgetting >= own.forgetting) & (part.retention >= own.retention)]
        better = better[
            (better.forgetting > own.forgetting + 0.005) | (better.retention > own.retention + 0.005)
        ]
        told = ", ".join(f"{value:.3g}" for value in better.value) or "no value tried"
        lines.append(
            f"- `{name}` (default {own.value:.3g}): forgetting rate spans {span['forgetting']:.2f}, retention "
            f"{span['retention']:.2f}; better in one and no worse in the other: {told}."
        )
    return "\n".join(lines)
