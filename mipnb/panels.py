"""Figures of single notebooks: bars to be met, training of the vanilla model, gaps, concentration, silencing."""

from __future__ import annotations

import re

import pandas as pd
from matplotlib.axes import Axes

GOOD, BAD, MARK = "#0072B2", "#D55E00", "#222222"
RULE_COLOURS = {"right": "#D55E00", "midpoint": "#0072B2", "gauss": "#009E73"}
PAIR_COLOURS = {"text": "#0072B2", "text_pictured": "#56B4E9", "vision": "#D55E00"}


def demand_bars(bars: pd.DataFrame, ax: Axes) -> Axes:
    """Every demand a horizontal bar with its threshold; one that is missed has another colour and says so.

    Args:
        bars: from `vanilla.bars`.
        ax: where to draw.
    """
    labels = [f"{row.demand.split(':')[0]} · {row.split} {row.task}" for row in bars.itertuples(index=False)]
    at = range(len(bars))
    ax.barh(at, bars.measured, color=[GOOD if met else BAD for met in bars.met], height=0.7, alpha=0.8)
    for row, (bound, met, measured) in enumerate(zip(bars.bound, bars.met, bars.measured, strict=True)):
        for level in map(float, re.findall(r"[0-9.]+", bound)):
            ax.plot([level, level], [row - 0.42, row + 0.42], color=MARK, linewidth=1.6)
        words = f"{measured:.2f}, {'met' if met else 'MISSED'} ({bound})"
        ax.text(1.02, row, words, va="center", fontsize="small", weight="normal" if met else "bold")
    ax.set_yticks(at, labels)
    ax.set(xlim=(0, 1), ylim=(len(bars) - 0.4, -0.6), xlabel="measured; black marks are the demand")
    return ax


def bars_verdict(bars: pd.DataFrame) -> str:
    """Markdown that says whether every bar is met, loudly if one is not."""
    missed = bars[~bars.met]
    if missed.empty:
        return f"All {len(bars)} bars are met."
    lines = [
        f"- {row.demand}, {row.split} {row.task} {row.metric}: **{row.measured:.2f}**, demanded {row.bound}"
        for row in missed.itertuples()
    ]
    warning = f"## ⚠ {len(missed)} of {len(bars)} bars are MISSED\n\n"
    return warning + "\n".join(lines) + "\n\nWhat later notebooks find in this model does not count."


def loss_curves(history: pd.DataFrame, ax: Axes, smooth: int = 20) -> Axes:
    """The loss of every training step, phase by phase on one axis of steps, as a running mean.

    Args:
        history: columns phase, step, loss, in the order of training (`remake.remake`).
        ax: where to draw.
        smooth: steps of the running mean.
    """
    start = 0
    for phase, part in history.groupby("phase", sort=False):
        ax.plot(start + part.step, part.loss.rolling(smooth, min_periods=1).mean(), label=phase)
        start += len(part)
    ax.set(xlabel="step", ylabel="loss", yscale="log")
    ax.legend()
    return ax


def gap_curves(table: pd.DataFrame, ax: Axes) -> Axes:
    """Median completeness gap against the number of steps, a line a rule, with the range of the questions.

    Args:
        table: rows of one branch of `locating.gap_by_steps`.
        ax: where to draw.
    """
    for rule, part in table.groupby("rule", sort=False):
        by_step = part.groupby("n_steps").gap.agg(["median", "min", "max"])
        colour = RULE_COLOURS[rule]
        ax.plot(by_step.index, by_step["median"], color=colour, marker="o", markersize=3, label=rule)
        ax.fill_between(by_step.index, by_step["min"], by_step["max"], color=colour, alpha=0.12, linewidth=0)
    steps = sorted(table.n_steps.unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(steps, [str(step) for step in steps])
    ax.set(xlabel="steps m", ylabel="completeness gap", yscale="log")
    return ax


def concentration_curves(table: pd.DataFrame, ax: Axes) -> Axes:
    """Share of the scores that the top neurons hold; the dotted line is: all neurons alike.

    Args:
        table: columns pair, top, held (`locating.concentration` of several pairs).
        ax: where to draw.
    """
    for pair, part in table.groupby("pair", sort=False):
        ax.plot(part.top, part.held, color=PAIR_COLOURS[pair], label=pair)
    top = sorted(table.top.unique())
    ax.plot(top, top, color=MARK, linestyle=":", linewidth=0.8, label="all alike")
    ax.set(xscale="log", ylim=(0, 1.02), xlabel="top share of neurons", ylabel="share of |scores|")
    ax.legend()
    return ax


def change_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Change of F, the right answer's probability: a pair of bars (forget, retain) for everything silenced.

    Axes that share x get limits that hold all their bars; they reach at least from -0.05 to 0.02.

    Args:
        table: rows of one modality of `silencing.silencing`, without "nothing".
        ax: where to draw.
    """
    names = list(dict.fromkeys(table.silenced))
    for offset, group, colour in ((-0.2, "forget", "#D55E00"), (0.2, "retain", "#999999")):
        part = table[table["set"] == group].set_index("silenced").change.reindex(names)
        ax.barh([row + offset for row in range(len(names))], part, 0.38, color=colour, label=group)
    ax.axvline(0, color=MARK, linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.update_datalim([(-0.05, 0), (0.02, 0)], updatey=False)
    ax.set(xlabel="change of F, the mean probability\nof the right answer", ylim=(len(names) - 0.4, -0.6))
    ax.locator_params(axis="x", nbins=5)
    return ax


def path_marks(table: pd.DataFrame, ax: Axes) -> Axes:
    """Where the chosen neurons of several paths of one branch lie: a tick a neuron, a band a layer, a row a path.

    Args:
        table: `agreement.path_table` of each path, one below the other.
        ax: where to draw.
    """
    paths, layers = list(dict.fromkeys(table["path"])), sorted(table["layer"].unique())
    step = 0.8 / len(paths)
    colours = (BAD, "#888888", GOOD)
    for index, path in enumerate(paths):
        for layer in layers:
            at = table[(table["path"] == path) & (table["layer"] == layer)].neuron
            offset = layer + (index - (len(paths) - 1) / 2) * step
            label = path if layer == layers[0] else None
            ax.eventplot(
                at, lineoffsets=offset, linelengths=step * 0.9, colors=colours[index % 3], linewidths=1,
                label=label,
            )  # fmt: skip
    ax.set_yticks(layers)
    ax.set(xlabel="neuron", ylabel="layer", ylim=(layers[-1] + 0.5, layers[0] - 0.5))
    return ax
