"""How far estimators of neuron scores agree with `exact`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from mipnb.scores import Scores
from mipnb.searches import top_neurons

#: everything that scores all neurons of all layers; names as in figures and tables
ESTIMATORS: dict[str, dict[str, Any]] = {
    "greedy": {"search": "greedy"},
    "one_pass": {"search": "one_pass"},
    "tangent": {"search": "tangent"},
    "shortlist": {"search": "shortlist"},
    "gradient": {"search": "gradient"},
    "relevance": {"search": "relevance"},
    "greedy, stieltjes": {"search": "greedy", "rule": "stieltjes"},
    "one_pass, stieltjes": {"search": "one_pass", "rule": "stieltjes"},
    "one_pass, gauss 16": {"search": "one_pass", "rule": "gauss", "n_steps": 16},
}


OTHER_RULE = "exact, other rule"  # the reference by the other rule, as if it were an estimator
#: measure of agreement -> its least and largest value
BOUNDS = {"top_k_overlap": (0.0, 1.0), "rank_correlation": (-1.0, 1.0)}


def top_overlap(scores: Tensor, reference: Tensor, top_k: int) -> Tensor:
    """Share of the reference's top_k that are among the scores' top_k: (samples, layers), 0 to 1."""
    chosen = torch.zeros_like(reference).scatter_(-1, top_neurons(scores, top_k), 1.0)
    return chosen.gather(-1, top_neurons(reference, top_k)).mean(-1)


def rank_correlations(scores: Tensor, reference: Tensor) -> Tensor:
    """Spearman's correlation over each layer's neurons: (samples, layers), -1 to 1; 0 where all are alike."""
    ranks = [values.argsort(-1).argsort(-1).float() for values in (scores, reference)]
    centred = [part - part.mean(-1, keepdim=True) for part in ranks]
    alike = (scores.amax(-1) == scores.amin(-1)) | (reference.amax(-1) == reference.amin(-1))
    found = torch.nn.functional.cosine_similarity(*centred, dim=-1)
    return torch.where(alike, torch.zeros_like(found), found)


def interval(
    values: Sequence[float], bounds: tuple[float, float], level: float = 0.95
) -> tuple[float, float]:
    """Student's interval of the mean, of values that are few; cut where the measure ends, NaN for a single value."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    low, high = np.clip([values.mean() - half, values.mean() + half], *bounds)
    return float(low), float(high)


def agreement_table(found: Mapping[str, Scores], reference: Scores, top_k: int, pair: str) -> pd.DataFrame:
    """Agreement of each estimator with a reference on the same questions, layer by layer.

    Returns:
        Columns pair, estimator, layer ("all" for the mean over layers), measure (top_k_overlap, rank_correlation), value,
        low, high (95 % t interval over questions), n (questions).
    """
    rows = []
    for name, scores in found.items():
        measures = {
            "top_k_overlap": top_overlap(scores.values, reference.values, top_k),
            "rank_correlation": rank_correlations(scores.values, reference.values),
        }
        for measure, table in measures.items():
            layers = {str(layer): column for layer, column in enumerate(table.T)} | {"all": table.mean(1)}
            rows += [
                (
                    pair,
                    name,
                    layer,
                    measure,
                    column.mean().item(),
                    *interval(column, BOUNDS[measure]),
                    len(column),
                )
                for layer, column in layers.items()
            ]
    columns = ["pair", "estimator", "layer", "measure", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def overlaps(agreement: pd.DataFrame, rule: str | None = None) -> pd.DataFrame:
    """The rows of top-k overlap, of all layers together; of like rules, if one is given."""
    rows = agreement[(agreement.measure == "top_k_overlap") & (agreement.layer == "all")]
    return rows if rule is None else rows[rows.rule == rule]


def cheapest_that_agrees(
    agreement: pd.DataFrame, cost: Mapping[str, float], rule: str, least: float = 0.9
) -> str | None:
    """The cheapest estimator whose top-k overlap with the reference is at least that much everywhere; None if there is none.

    Args:
        agreement: `agreement_table`, with columns kind and rule (of the reference, and of estimators that name none).
        cost: estimator -> seconds; others are not looked at.
        rule: which rows of the table.
        least: the overlap that is asked for.
    """
    worst = overlaps(agreement, rule).groupby("estimator").value.min()
    good = [name for name in cost if worst.get(name, 0) >= least]
    return min(good, key=cost.__getitem__) if good else None


def default_sentence(
    agreement: pd.DataFrame, cost: Mapping[str, float], rule: str, default: str, least: float = 0.9
) -> str:
    """Markdown that says which estimator is the cheapest with the overlap asked for, by that rule, and what the default has.

    Args:
        agreement, cost, rule, least: as for `cheapest_that_agrees`.
        default: the library's own choice.
    """
    found = cheapest_that_agrees(agreement, cost, rule, least)
    worst = overlaps(agreement, rule).groupby("estimator").value.min()[list(cost)].sort_values()
    pairs = ", ".join(dict.fromkeys(agreement.pair))
    told = (
        f"the cheapest with an overlap of {least} in all of {pairs} is `{found}`, at "
        f"{cost[found] / cost['greedy']:.1f} times the time of `greedy`"
        if found
        else f"**none reaches {least}** in all of {pairs}"
    )
    best = worst.index[-1]
    nearest = f"; the nearest, `{best}`, {worst[best]:.2f}" if worst[default] < worst[best] else ""
    return f"With `exact` by `{rule}`, {told}. The default, `{default}`, has at least {worst[default]:.2f}{nearest}."


def closest_sentences(cost: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """Markdown that names, for each branch and modality, the closest estimator, and the cheapest within its 95 % interval.

    Args:
        cost: columns pair, call, seconds; "bare passes" among the calls.
        agreement: `agreement_table` of one rule, with a column kind.
    """
    rows, lines = overlaps(agreement), []
    for (pair, kind), part in rows[rows.estimator.isin(ESTIMATORS)].groupby(["pair", "kind"], sort=False):
        part, seconds = part.set_index("estimator"), cost[cost.pair == pair].set_index("call").seconds
        best = part.value.idxmax()
        cheap = min(part.index[part.value >= part.low[best]], key=seconds.get)
        first, second = (
            f"`{name}` ({part.value[name]:.2f}, at {seconds[name] / seconds['bare passes']:.2f} of the bare passes' time)"
            for name in (best, cheap)
        )
        within = f"the cheapest within its 95 % interval (of {part.n[best]} questions) is {second}"
        also = "" if best == cheap else f"; {within}"
        lines.append(f"- {pair}, {kind}: closest is {first}{also}.")
    return "\n".join(lines)


def finer_sentence(agreement: pd.DataFrame) -> str:
    """Markdown on how near `exact` by one rule is to `exact` by another, and whether finer integration of the set comes nearer.

    Args:
        agreement: `agreement_table`, with columns kind and rule.
    """
    rows = overlaps(agreement)
    own = rows[rows.estimator == OTHER_RULE].groupby(["pair", "kind"], sort=False).value.mean()
    table = rows.pivot_table(index=["pair", "kind", "rule"], columns="estimator", values="value")
    counts = {}
    for coarse, finer in (("greedy", "greedy, stieltjes"), ("one_pass", "one_pass, stieltjes")):
        counts[f"`{finer}` is nearer than `{coarse}`"] = int((table[finer] > table[coarse]).sum())
    told = ", ".join(f"{what} in {nearer}" for what, nearer in counts.items())
    apart = ", ".join(f"{value:.2f} ({pair}, {kind})" for (pair, kind), value in own.items())
    rarely = max(counts.values()) <= len(table) / 2
    return (
        f"`exact` itself, by the one rule and by the other, has a top-k overlap of {apart}. Of {len(table)} cases (branch and "
        f"modality, kind of gradient, rule of `exact`) {told}"
        + (
            ": `stieltjes` integrates more finely, but all neurons of the set scaled at once, where `exact` scales each "
            "candidate alone; a small gap does not bring scores nearer to it."
            if rarely
            else "."
        )
    )
