"""Figures of what locating costs and what it is worth; their tables are those of `bench_locating`."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from mipnb.panels import MARK, PAIR_COLOURS, RULE_COLOURS

_RULES = RULE_COLOURS | {"stieltjes": "#CC79A7"}
_MARKERS = "osD^vPX*<>hdp8"
#: call -> the ratio of times that it is to keep
COST_BARS = {"one_pass": 1.3, "one_pass, stieltjes": 1.3, "greedy": 0.5}


def cost_ratios(table: pd.DataFrame, ax: Axes) -> Axes:
    """Each call's time over that of what it is held against, a dot a pair, with the range of the rounds.

    Args:
        table: of `bench_locating.cost`.
        ax: where to draw; the bars to keep, `COST_BARS`, are black lines beside their own calls.
    """
    drawn = table[table.call != table.against]
    names = list(dict.fromkeys(drawn.call))
    for offset, (pair, part) in enumerate(drawn.groupby("pair", sort=False)):
        rows = [names.index(call) + 0.2 * (offset - 1) for call in part.call]
        spread = [part.ratio - part.low, part.high - part.ratio]
        ax.errorbar(
            part.ratio, rows, xerr=spread, fmt="o", markersize=3, color=PAIR_COLOURS[pair], label=pair
        )
    for row, bar in ((names.index(call), bar) for call, bar in COST_BARS.items() if call in names):
        ax.plot([bar, bar], [row - 0.42, row + 0.42], color=MARK, linewidth=1.6)
    labels = [f"{name} / {drawn[drawn.call == name].against.iloc[0]}" for name in names]
    ax.set_yticks(range(len(names)), labels)
    ax.set(xscale="log", xlabel="ratio of times", ylim=(len(names) - 0.5, -0.5))
    ticks = [
        tick
        for tick in (0.25, 0.5, 1, 2, 4, 8, 16, 64, 256, 1024)
        if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]
    ]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    return ax


def cost_and_agreement(
    cost: pd.DataFrame, agreement: pd.DataFrame, ax: Axes, measure: str = "top_k_overlap"
) -> Axes:
    """Agreement with `exact` against time, a mark an estimator, with 95 % intervals over questions.

    Args:
        cost, agreement: of `bench_locating`, of one pair and one kind of gradient.
        ax: where to draw; an overlap of 0.9 is dotted.
        measure: "top_k_overlap" or "rank_correlation".
    """
    bare = cost.set_index("call").seconds["bare passes"]
    seconds = cost.set_index("call").seconds / bare
    rows = agreement[(agreement.layer == "all") & (agreement.measure == measure)]
    rows = rows[rows.estimator.isin(seconds.index)]
    for marker, (_, row) in zip(_MARKERS[: len(rows)], rows.iterrows(), strict=True):
        spread = [[max(0.0, row.value - row.low)], [max(0.0, row.high - row.value)]]
        ax.errorbar(
            seconds[row.estimator], row.value, yerr=spread, fmt=marker, markersize=4, label=row.estimator
        )
    ax.axhline(0.9, color=MARK, linestyle=":", linewidth=0.8)
    ax.set(
        xscale="log",
        xlabel="time / m bare passes",
        ylabel=measure.replace("_", " "),
        ylim=(0, 1.05),
        xlim=(0.1, 100),
    )
    ax.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    ax.minorticks_off()
    return ax


def worth_and_overlap(table: pd.DataFrame, ax: Axes) -> Axes:
    """What the forget set loses per point of the retain set, against overlap with `exact`: a mark a search, 95 % intervals.

    Args:
        table: of `evidence.by_search.with_overlap`, of one branch, mark and ranking.
        ax: where to draw; at the dotted line both sets lose alike.
    """
    for marker, row in zip(_MARKERS[: len(table)], table.itertuples(), strict=True):
        spread = [[max(0.0, row.ratio - row.ratio_low)], [max(0.0, row.ratio_high - row.ratio)]]
        ax.errorbar(row.overlap, row.ratio, yerr=spread, fmt=marker, markersize=4, label=row.search)
    ax.axhline(1, color=MARK, linestyle=":", linewidth=0.8)
    ax.set(yscale="log", xlabel="top k overlap with exact", ylabel="ratio of falls", xlim=(0, 1.05))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    return ax


def integration_curves(table: pd.DataFrame, ax: Axes, column: str = "error") -> Axes:
    """Median gap or error against steps, a line a rule, with the middle 80 % of the rows.

    Args:
        table: rows of one pair and search of `bench_locating.gap`, of one layer or several.
        ax: where to draw; 1 % is dotted.
        column: "gap" or "error".
    """
    table = table[table.rule.isin(_RULES)]
    for rule, part in table.groupby("rule", sort=False):
        steps = part.groupby("n_steps")[column].quantile([0.1, 0.5, 0.9]).unstack().clip(lower=1e-6)
        ax.plot(steps.index, steps[0.5], color=_RULES[rule], marker="o", markersize=3, label=rule)
        ax.fill_between(steps.index, steps[0.1], steps[0.9], color=_RULES[rule], alpha=0.12, linewidth=0)
    ticks = [step for step in sorted(table.n_steps.unique()) if (step & (step - 1)) == 0]
    ax.axhline(0.01, color=MARK, linestyle=":", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="steps m", ylabel=column)
    ax.set_xticks(ticks, [str(step) for step in ticks])
    ax.minorticks_off()
    return ax


def scaling_lines(table: pd.DataFrame, ax: Axes, column: str = "seconds") -> Axes:
    """Time or peak memory against one size, over its value at the smallest; the dotted line is proportional.

    Args:
        table: rows of one `varied` of `bench_scaling.scaling`.
        ax: where to draw.
        column: "seconds" or "peak_gb".
    """
    for (pair, search), part in table.groupby(["pair", "search"], sort=False):
        style = "-" if search == "greedy" else "--"
        part = part.sort_values("size")
        ax.plot(
            part["size"],
            part[column] / part[column].iloc[0],
            style,
            color=PAIR_COLOURS[pair],
            label=f"{pair}, {search}",
        )
    sizes = sorted(table["size"].unique())
    ax.plot(sizes, [size / sizes[0] for size in sizes], ":", color=MARK, linewidth=0.8, label="proportional")
    ax.set(xlabel=table.varied.iloc[0].replace("_", " "), ylabel=f"{column}, relative")
    return ax
