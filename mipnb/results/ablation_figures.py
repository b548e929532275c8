"""The figure of notebook 09 and the sentences that read its table."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mipnb.evaluation import compare
from mipnb.paths import NeuronPath
from mipnb.plotting import MAIN_METRIC, PAGE
from mipnb.results.ablation import ROWS, TITLES, main_rows
from mipnb.results.measures import on
from mipnb.results.setting import MAIN_TASKS
from mipnb.task_names import task_name

FORGET, RETAIN = "#D55E00", "#0072B2"


def ablation_figure(rows: pd.DataFrame) -> Figure:
    """A panel a task, a line a row of the ablation: what is left on the forget set, and what on the retain set.

    Args:
        rows: from `ablation.main_rows`, splits forget and retain.
    """
    tasks = [task for task in MAIN_TASKS if task in set(rows.task)]
    fig, axes = plt.subplots(
        1, len(tasks), figsize=(PAGE, 0.26 * (rows.method.nunique() + 2)), sharey=True, squeeze=False
    )
    for ax, task in zip(axes[0], tasks, strict=True):
        dumbbells(rows[rows.task == task], ax)
        ax.set_title(task_name(task))
        ax.set_xlabel("accuracy" if MAIN_METRIC[task] == "accuracy" else "ROUGE-L")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    return fig


def dumbbells(rows: pd.DataFrame, ax: Axes) -> Axes:
    """One line a method: forget and retain values with their 95 % intervals, joined."""
    methods = [name for name in ["vanilla", *TITLES] if name in set(rows.method)]
    cells = rows.set_index(["method", "split"])
    for place, method in enumerate(methods):
        ends = [cells.value[method, split] for split in ("forget", "retain")]
        ax.plot(ends, [place, place], color="#BBBBBB", linewidth=1, zorder=1)
    for split, colour in (("forget", FORGET), ("retain", RETAIN)):
        part = cells.xs(split, level="split").loc[methods]
        errors = [(part.value - part.low).clip(lower=0), (part.high - part.value).clip(lower=0)]
        ax.errorbar(
            part.value, range(len(methods)), xerr=errors, fmt="o", markersize=3.5, color=colour, elinewidth=0.7,
            label=split,
        )  # fmt: skip
    ax.set_yticks(range(len(methods)), [TITLES.get(name, name) for name in methods])
    ax.set(xlim=(-0.03, 1.05), ylim=(len(methods) - 0.5, -0.5))
    return ax


def shared_sentence(located: Sequence[NeuronPath], others: Sequence[NeuronPath]) -> str:
    """How much of each located path the other path of its branch has, too: "text 21%, vision 11%"."""
    shares = [
        (path, sum(len(set(a) & set(b)) for a, b in zip(path.layers, other.layers, strict=True)))
        for path, other in zip(located, others, strict=True)
    ]
    return ", ".join(f"{path.branch} {shared / sum(path.sizes):.0%}" for path, shared in shares)


def means_by_row(results: pd.DataFrame) -> pd.DataFrame:
    """Forgetting rate and retention of every row, means over the four tasks; train views, and unseen ones beside them.

    Returns:
        A row a method: forgetting, forgetting_unseen, retention, retention_unseen.
    """
    table = compare(results)
    table = table[(table.task.map(MAIN_METRIC) == table.metric) & (table.method != "vanilla")]
    names = {"forgetting_rate": ("forget", "test_forget"), "retention": ("retain", "test_retain")}
    found = {}
    for column, splits in names.items():
        for split, suffix in zip(splits, ("", "_unseen"), strict=True):
            part = table[table.split == split].groupby("method", sort=False)[column].mean()
            found[column.removesuffix("_rate") + suffix] = part
    order = [row.method for row in ROWS if row.method in set(table.method)]
    return pd.DataFrame(found).loc[order]


def seed_errors(results: pd.DataFrame) -> pd.DataFrame:
    """Standard errors between seeds of `means_by_row`'s forgetting and retention, 0 for a row of one seed: a row a method."""
    vanilla, rest = (results[(results.method == "vanilla") == wanted] for wanted in (True, False))
    parts = [means_by_row(pd.concat([vanilla, part])) for _, part in rest.groupby("seed")]
    every = pd.concat(parts)[["forgetting", "retention"]].groupby(level=0)
    return every.sem().fillna(0.0)


def differences(results: pd.DataFrame, least: float = 0.01) -> pd.DataFrame:
    """Every row's forgetting and retention less ours; 0 where they differ by no more than `least`, or than chance may do.

    Chance is twice the standard error between seeds; that other people would be forgotten otherwise is not in it.
    """
    means, errors = means_by_row(results)[["forgetting", "retention"]], seed_errors(results)
    found = means.drop("edited") - means.loc["edited"]
    limit = 2 * (errors.loc[found.index] ** 2 + errors.loc["edited"] ** 2) ** 0.5
    return found.where((found.abs() > least) & (found.abs() > limit), 0.0)


def ablation_sentences(results: pd.DataFrame) -> str:
    """Markdown: each row beside ours, in forgetting and in retention, as `differences` has it."""
    means, found = means_by_row(results), differences(results)
    ours = means.loc["edited"]
    lines = [f"- **ours**: forgetting rate {ours.forgetting:.2f}, retention {ours.retention:.2f}."]
    for method, row in means.drop("edited").iterrows():
        told = (
            f"{_beside('forgets', found.forgetting[method])} and {_beside('keeps', found.retention[method])}"
        )
        lines.append(
            f"- **{TITLES[method]}**: forgetting rate {row.forgetting:.2f}, retention {row.retention:.2f}; {told} ours."
        )
    return "\n".join(lines)


def _beside(verb: str, difference: float) -> str:
    return f"{verb} {'as much as' if not difference else 'more than' if difference > 0 else 'less than'}"


def winners(results: pd.DataFrame) -> str:
    """Markdown: the rows that forget as much as ours and keep as much, or better: where a part of the method does nothing."""
    found = differences(results)
    as_good = [TITLES[name] for name, row in found.iterrows() if (row >= 0).all()]
    if not as_good:
        return "No row forgets as much as ours and keeps as much."
    return f"As good as ours or better, as far as the seeds can tell: **{', '.join(as_good)}**."


def caption(results: pd.DataFrame) -> str:
    """The figure's caption: model, benchmark, ratio, seeds."""
    rows = main_rows(results)
    first, counts = rows.iloc[0], rows.groupby("method").n_seeds.max()
    fewer = ", ".join(f"{TITLES.get(name, name)} {n}" for name, n in counts.items() if n < counts.max())
    seeds = f"{counts.max()} seeds" + (f" ({fewer})" if fewer else "")
    where = on(first.benchmark, first.model, first.forget_ratio)
    return f"Ablation (the paper's Table 2) on {where}: means of {seeds}, 95 % intervals between people."
