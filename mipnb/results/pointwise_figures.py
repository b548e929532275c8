"""The figures of notebook 08, and the sentences that read them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mipnb.plotting import PAGE
from mipnb.results.rankings import CHOICES

#: safe for the colour-blind (Okabe and Ito 2008); path and random as in all other figures
COLOURS = dict(zip(CHOICES, ("#D55E00", "#009E73", "#E69F00", "#CC79A7", "#0072B2"), strict=True))
NAMES = {
    "path": "path", "activation": "activation", "activation_contrast": "activation, forget - retain", "manu": "MANU",
    "random": "random",
}  # fmt: skip
#: what a row of panels shows: branch, task
PANELS = (("text", "GEN"), ("text", "VGEN"), ("vision", "VGEN"))
MODALITY = {"GEN": "text questions", "VGEN": "image questions"}


def curve_rows(curves: pd.DataFrame, metric: str = "rougeL") -> pd.DataFrame:
    """What `keep_figure` draws: means over draws, with the range of the draws for random neurons.

    Args:
        curves: from `pointwise.keep_curves`.
        metric: "rougeL" or "value_recall".

    Returns:
        branch, task, split, choice, k, value, low, high: the 95 % interval over people for a choice of one draw, the
        range of the draws for several.
    """
    part = curves[curves.metric == metric]
    keys = ["branch", "task", "split", "choice", "k"]
    found = part.groupby(keys, sort=False).agg(
        mean=("value", "mean"), least=("value", "min"), most=("value", "max"), low=("low", "mean"),
        high=("high", "mean"), draws=("draw", "nunique"),
    )  # fmt: skip
    several = found.draws > 1
    found = found.assign(value=found["mean"], low=found.low.mask(several, found.least))
    found["high"] = found.high.mask(several, found.most)
    return found.reset_index()[[*keys, "value", "low", "high"]]


def keep_figure(rows: pd.DataFrame) -> Figure:
    """Fig. 4: ROUGE-L over the number of neurons kept, a row of panels a branch and modality, forget beside retain."""
    panels = [panel for panel in PANELS if not _of(rows, *panel).empty]
    fig, axes = plt.subplots(
        len(panels), 2, figsize=(PAGE, 1.9 * len(panels) + 0.4), sharex=True, sharey=True
    )
    for line, panel in zip(axes.reshape(-1, 2), panels, strict=True):
        for ax, split in zip(line, ("forget", "retain"), strict=True):
            keep_panel(_of(rows, *panel).query("split == @split"), ax)
            ax.set_title(f"{panel[0]} FFNs, {MODALITY[panel[1]]}: {split}")
            ax.set_ylabel("ROUGE-L" if split == "forget" else "")
            ax.set_xlabel("neurons kept per layer" if panel == panels[-1] else "")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), ncols=5, loc="outside lower center")
    return fig


def _of(rows: pd.DataFrame, branch: str, task: str) -> pd.DataFrame:
    return rows[(rows.branch == branch) & (rows.task == task)]


def keep_panel(rows: pd.DataFrame, ax: Axes) -> Axes:
    """One line a choice with its band."""
    for choice, part in rows.groupby("choice", sort=False):
        ax.plot(part.k, part.value, color=COLOURS[choice], marker="o", markersize=2.5, label=NAMES[choice])
        ax.fill_between(part.k, part.low, part.high, color=COLOURS[choice], alpha=0.12, linewidth=0)
    steps = sorted(rows.k.unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(steps, [str(step) for step in steps])
    ax.minorticks_off()
    ax.set(ylim=(-0.02, 1.05))
    return ax


def area_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean ROUGE-L over log k of every curve, so that curves that cross can be compared.

    Returns:
        A row a branch, task and split, a column a choice.
    """
    found = {}
    for key, part in rows.sort_values("k").groupby(["branch", "task", "split", "choice"], sort=False):
        places = pd.Series(range(len(part))).to_numpy()  # steps lie at equal distances in log k
        widths = pd.Series(places).diff().fillna(0).to_numpy()
        middle = part.value.rolling(2).mean().fillna(0).to_numpy()
        found[key] = float((widths * middle).sum() / max(1, widths.sum()))
    table = pd.Series(found).unstack(-1)
    return table[[name for name in CHOICES if name in table]].rename_axis(["branch", "task", "split"])


def area_sentence(areas: pd.DataFrame) -> str:
    """Markdown: where the path keeps more of the forget set than every other choice, and where it does not."""
    lines = []
    for (branch, task), part in areas.groupby(level=["branch", "task"], sort=False):
        forget = part.xs("forget", level="split").iloc[0]
        best = forget.drop("path").idxmax()
        lead = forget["path"] - forget[best]
        verdict = "keeps more" if lead > 0.05 else "keeps less" if lead < -0.05 else "keeps about as much"
        lines.append(
            f"- {branch} FFNs, {MODALITY[task]}: mean ROUGE-L over log k on the forget set {forget['path']:.2f} for the path, "
            f"{forget[best]:.2f} for the best other choice ({NAMES[best]}): the path **{verdict}**."
        )
    return "\n".join(lines)


def change_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Fig. 5: relative change of the gold probability on forget and retain, and their ratio; a row of panels a size.

    Args:
        tables: size -> `pointwise.relative_changes`.
    """
    fig, axes = plt.subplots(len(tables), 3, figsize=(PAGE, 2.1 * len(tables) + 0.4), squeeze=False)
    for line, (size, table) in zip(axes, tables.items(), strict=True):
        for ax, kind in zip(line, ("classification", "generation"), strict=False):
            change_bars(table[table.kind == kind], ax).set_title(f"{kind}, {size}")
        ratio_bars(table, line[2]).set_title(f"forget / retain, {size}")
        line[0].set_ylabel("relative change of F")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return fig


def change_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """Two bars a choice: how much the gold probability moves on forget and on retain."""
    for place, (measure, colour) in enumerate((("forget", "#D55E00"), ("retain", "#56B4E9"))):
        part = table[table.measure == measure]
        at = [index + (place - 0.5) * 0.4 for index in range(len(part))]
        ax.bar(at, part.value, 0.38, color=colour, label=measure)
        _whiskers(part, at, ax)
    return _choices_below(table, ax)


def ratio_bars(table: pd.DataFrame, ax: Axes) -> Axes:
    """The ratio forget / retain of each choice, both kinds of task side by side; 1 is no preference for the forget set."""
    for place, (kind, colour) in enumerate((("classification", "#444444"), ("generation", "#AAAAAA"))):
        part = table[(table.measure == "ratio") & (table.kind == kind)]
        at = [index + (place - 0.5) * 0.4 for index in range(len(part))]
        ax.bar(at, part.value, 0.38, color=colour, label=kind)
        _whiskers(part, at, ax)
    ax.axhline(1, color="#222222", linewidth=0.6, linestyle=":")
    ax.legend(fontsize="small")
    return _choices_below(table, ax)


def _whiskers(part: pd.DataFrame, at: Sequence[float], ax: Axes) -> None:
    ends = [(part.value - part.low).clip(lower=0), (part.high - part.value).clip(lower=0)]
    ax.errorbar(at, part.value, ends, fmt="none", ecolor="#222222", elinewidth=0.7, capsize=1.2)


def _choices_below(table: pd.DataFrame, ax: Axes) -> Axes:
    names = list(dict.fromkeys(table.choice))
    short = {"activation_contrast": "activation\nf - r", "manu": "MANU"}
    ax.set_xticks(range(len(names)), [short.get(name, name) for name in names], rotation=35, ha="right")
    ax.set_ylim(bottom=0)
    return ax


def change_sentences(table: pd.DataFrame, size: str) -> str:
    """Markdown: how the path's change and ratio stand beside the best of the other choices."""
    lines = []
    for kind in dict.fromkeys(table.kind):
        cells = table[table.kind == kind].set_index(["measure", "choice"]).value
        ratio = cells["ratio"]
        best = ratio.drop("path").idxmax()
        most = cells["forget"].drop("path").idxmax()
        lines.append(
            f"- {size}, {kind}: the path moves F on the forget set by {cells['forget', 'path']:.2g} and on the retain set by "
            f"{cells['retain', 'path']:.2g}, {ratio['path']:.2f} times as much; of the others {NAMES[most]} moves it most "
            f"({cells['forget', most]:.2g}, retain {cells['retain', most]:.2g}), the best ratio of the others is "
            f"{ratio[best]:.2f} ({NAMES[best]})."
        )
    return "\n".join(lines)


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of `pointwise.relative_changes` in one, the first column saying which: size."""
    return pd.concat(tables, names=["size"]).reset_index("size").reset_index(drop=True)
