"""How far estimators of neuron scores agree with `exact`, and with finer integration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mipnb.attribution import attribute
from mipnb.batches import Batch
from mipnb.rules import RULES
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
N_RESAMPLED = 1000  # draws of an interval


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


def interval(values: Sequence[float], seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the mean."""
    values, draw = np.asarray(values, dtype=float), np.random.default_rng(seed)
    means = values[draw.integers(0, len(values), (N_RESAMPLED, len(values)))].mean(1)
    return tuple(float(end) for end in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def agreement_table(
    found: Mapping[str, Scores], reference: Scores, top_k: int, pair: str, seed: int = 0
) -> pd.DataFrame:
    """Agreement of each estimator with a reference on the same questions, layer by layer.

    Returns:
        Columns pair, estimator, layer ("all" for the mean over layers), measure (top_k_overlap, rank_correlation), value,
        low, high (95 % bootstrap interval over questions), n (questions).
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
                (pair, name, layer, measure, column.mean().item(), *interval(column, seed), len(column))
                for layer, column in layers.items()
            ]
    columns = ["pair", "estimator", "layer", "measure", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def cheapest_that_agrees(
    agreement: pd.DataFrame, cost: Mapping[str, float], least: float = 0.9
) -> str | None:
    """The cheapest estimator whose top-k overlap with the reference is at least that much everywhere; None if there is none."""
    rows = agreement[(agreement.measure == "top_k_overlap") & (agreement.layer == "all")]
    overlap = rows.groupby("estimator").value.min()
    good = [name for name in cost if overlap.get(name, 0) >= least]
    return min(good, key=cost.__getitem__) if good else None


def closest_sentences(cost: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """Markdown that names, for each branch and modality, the closest estimator, and the cheapest within its 95 % interval.

    Args:
        cost: columns pair, call, seconds; "bare passes" among the calls.
        agreement: `agreement_table`, with a column kind.
    """
    rows = agreement[(agreement.measure == "top_k_overlap") & (agreement.layer == "all")]
    lines = []
    for (pair, kind), part in rows.groupby(["pair", "kind"], sort=False):
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
    """Markdown on whether finer integration of the same set of neurons comes nearer to the reference.

    Args:
        agreement: `agreement_table`, with a column kind.
    """
    rows = agreement[(agreement.measure == "top_k_overlap") & (agreement.layer == "all")]
    table = rows.pivot_table(index=["pair", "kind"], columns="estimator", values="value")
    told = []
    for coarse, finer in (("greedy", "greedy, stieltjes"), ("one_pass", "one_pass, stieltjes")):
        nearer = int((table[finer] > table[coarse]).sum())
        told.append(f"`{finer}` agrees better than `{coarse}` in {nearer} of {len(table)} cases")
    return (
        f"{'; '.join(told)}. Its integrals are finer, but of all neurons of the set scaled at once, where `exact` scales each "
        "candidate alone: a small completeness gap and agreement with `exact` are two things."
    )


def integration_errors(
    model: nn.Module,
    batch: Batch,
    branch: str,
    search: str,
    rules: Mapping[str, Sequence[int]],
    converged: int = 96,
    **choices: Any,
) -> pd.DataFrame:
    """The completeness gap, and the error of the scores themselves, by rule and number of steps.

    Path and set are those of each way of integrating; errors are against midpoint sums of many steps. Layers after the first
    have the path of their own search below them, so errors of greedy scores are those of its first layer.

    Args:
        model, batch, branch: as for `attribute`.
        search: "greedy" or "one_pass".
        rules: rule -> numbers of steps.
        converged: steps that count as enough.
        **choices: of `attribute`.

    Returns:
        Columns search, rule, n_steps, sample, layer (-1: jointly), gap, error (sum of |score - converged| over sum of
        |converged|).
    """
    own = {"kind": "igi", "score": "complete", "search": search, "fingerprint": ""} | choices
    fine = attribute(
        model, batch, branch, rule="midpoint", n_steps=converged, completeness=False, **own
    ).values
    rows = []
    for rule, counts in rules.items():
        for n_steps in counts:
            found = attribute(model, batch, branch, rule=rule, n_steps=n_steps, **own)
            gaps = found.gap if found.gap.dim() == 2 else found.gap[:, None]
            errors = _errors(found.values, fine, gaps.shape[1])
            for (sample, layer), gap in np.ndenumerate(gaps.numpy()):
                at = layer if search == "greedy" else -1
                rows.append((search, rule, n_steps, sample, at, float(gap), float(errors[sample, layer])))
    return pd.DataFrame(rows, columns=["search", "rule", "n_steps", "sample", "layer", "gap", "error"])


def gap_bar_sentence(gap: pd.DataFrame, n_steps: int, times: float, bar: float = 0.01) -> str:
    """Markdown that says with which rules the completeness gap is small enough, a layer at a time and jointly.

    Args:
        gap: `integration_errors`, with a column pair.
        n_steps: the m that is judged.
        times: how often as long as with `right`, the default, `stieltjes` takes.
        bar: the largest median gap allowed.
    """
    medians = gap[gap.n_steps == n_steps].groupby(["rule", "search", "pair"], sort=False).gap.median()
    worst = medians.groupby("rule", sort=False).max()
    told = {True: [], False: []}
    for rule, value in worst.items():
        told[bool(value <= bar)].append(f"`{rule}` ({value:.3f})")
    met, missed = (", ".join(told[kept]) or "none" for kept in (True, False))
    fixed = gap[gap.rule.isin(RULES)]
    fewest = "; ".join(
        f"{where} {_fewest_steps(fixed[fixed.search == search], bar)}"
        for search, where in (("greedy", "a layer at a time"), ("one_pass", "jointly"))
    )
    return (
        f"At m = {n_steps} a median gap of at most {bar:.0%}, a layer at a time (greedy) and jointly (one_pass), in every "
        f"branch and modality: met by {met}; **not met** by {missed} (in brackets the largest median).\n\n"
        f"Of the rules with fixed points, up to m = {fixed.n_steps.max()}, the fewest steps from "
        f"which on it is met: {fewest}.\n\n"
        "`right`, the paper's, is the default: its scores rank neurons and are no amounts. Where amounts are wanted, "
        f"`-p rule stieltjes` takes {times:.1f} times as long. Its integrals add up by construction; how good its scores "
        "are is the error against many steps, in `gap.csv`."
    )


def _fewest_steps(gap: pd.DataFrame, bar: float) -> str:
    """The rule that keeps the bar, every pair's median gap, from the fewest steps on, and these; "none" if none does."""
    worst = gap.groupby(["rule", "n_steps", "pair"]).gap.median().groupby(["rule", "n_steps"]).max()
    enough = {}
    for rule, row in worst.groupby("rule"):
        kept = (row <= bar).iloc[::-1].cummin()
        if kept.any():
            enough[rule] = kept[kept].index.get_level_values("n_steps").min()
    if not enough:
        return "none"
    rule = min(enough, key=enough.__getitem__)
    return f"`{rule}`, m = {enough[rule]}"


def _errors(values: Tensor, fine: Tensor, sets: int) -> Tensor:
    """Relative error of each sample's scores, layer by layer or of all layers together: (samples, sets)."""
    if sets == 1:
        values, fine = values.flatten(1)[:, None], fine.flatten(1)[:, None]
    return (values - fine).abs().sum(-1) / fine.abs().sum(-1)
