"""How complete integrals along the gate are, and how good the scores: by rule and number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from mipnb.attribution import attribute
from mipnb.batches import Batch
from mipnb.models import ffns
from mipnb.rules import RULES
from mipnb.scores import Scores

FINE = ("midpoint", 384)  # rule and steps that errors are read against
REFERENCE = "reference"  # their name in the column rule


def integration_errors(
    model: nn.Module,
    batch: Batch,
    branch: str,
    search: str,
    rules: Mapping[str, Sequence[int]],
    fine: tuple[str, int] = FINE,
    **choices: Any,
) -> pd.DataFrame:
    """The completeness gap, and the error of the scores themselves, by rule and number of steps.

    Errors are against many steps. Layers above the first stand on the path of their own search, another one for each way of
    integrating, so that greedy scores have an error of the integral alone in the first layer only.

    Args:
        model, batch, branch: as for `attribute`.
        search: "greedy" or "one_pass".
        rules: rule -> numbers of steps.
        fine: rule and number of steps that count as enough.
        **choices: of `attribute`.

    Returns:
        Columns search, rule, n_steps, sample, layer (-1: jointly), gap, error (sum of |score - fine| over sum of |fine|; NaN
        above the first layer). Rows of rule "reference" are the fine ones, so that their own gap can be read.
    """
    own = {"kind": "igi", "score": "complete", "search": search, "fingerprint": ""} | choices
    networks = own.pop("ffns", None) or ffns(model, branch)
    first = networks[:1] if search == "greedy" else networks
    truth = attribute(model, batch, branch, rule=fine[0], n_steps=fine[1], ffns=first, **own)
    rows = _rows(truth, truth, (search, REFERENCE, fine[1]))
    for rule, counts in rules.items():
        for n_steps in counts:
            found = attribute(model, batch, branch, rule=rule, n_steps=n_steps, ffns=networks, **own)
            rows += _rows(found, truth, (search, rule, n_steps))
    return pd.DataFrame(rows, columns=["search", "rule", "n_steps", "sample", "layer", "gap", "error"])


def _rows(found: Scores, truth: Scores, named: tuple[str, str, int]) -> list[tuple]:
    """A row a sample and set; the sets are layers (gap of two dimensions) or one, all layers together."""
    by_layer = found.gap.dim() == 2
    gaps = found.gap if by_layer else found.gap[:, None]
    values, fine = (scores.values[:, :1] if by_layer else scores.values for scores in (found, truth))
    errors = _error(values, fine)
    return [
        (
            *named,
            sample,
            layer if by_layer else -1,
            float(gap),
            float(errors[sample]) if layer == 0 else float("nan"),
        )
        for (sample, layer), gap in np.ndenumerate(gaps.numpy())
    ]


def _error(values: Tensor, fine: Tensor) -> Tensor:
    """Relative error of each sample's scores, of all layers given together: (samples,)."""
    return (values - fine).flatten(1).abs().sum(-1) / fine.flatten(1).abs().sum(-1)


def gap_table(gap: pd.DataFrame, bar: float = 0.01) -> pd.DataFrame:
    """By search, pair, rule and steps: the median gap of the layer (or of all jointly) where it is largest, and the share of
    questions and layers within the bar.

    Args:
        gap: `integration_errors`, with a column pair.
        bar: the largest gap allowed.
    """
    by = ["search", "pair", "rule", "n_steps"]
    medians = gap.groupby([*by, "layer"], sort=False).gap.median()
    within = (gap.gap <= bar).groupby([gap[name] for name in by], sort=False).mean()
    return pd.DataFrame(
        {"largest median": medians.groupby(by, sort=False).max(), f"within {bar:.0%}": within}
    )


def error_table(gap: pd.DataFrame, n_steps: int) -> pd.DataFrame:
    """By search, pair and rule the error of the scores at that many steps: the median question's and the worst one's.

    Args:
        gap: `integration_errors`, with a column pair.
        n_steps: the m that is judged.
    """
    rows = gap[(gap.n_steps == n_steps) & gap.error.notna() & (gap.rule != REFERENCE)]
    return rows.groupby(["search", "pair", "rule"], sort=False).error.agg(median="median", worst="max")


def gap_bar_sentence(gap: pd.DataFrame, n_steps: int, times: float, bar: float = 0.01) -> str:
    """Markdown that says with which rules the completeness gap is small enough, in every layer and jointly.

    Args:
        gap: `integration_errors`, with a column pair.
        n_steps: the m that is judged.
        times: how often as long as with `right`, the run's rule, `greedy` takes with `stieltjes`.
        bar: the largest median gap allowed.
    """
    table = gap_table(gap[gap.rule != REFERENCE], bar)["largest median"]
    worst = table.xs(n_steps, level="n_steps").groupby("rule", sort=False).max()
    told = {True: [], False: []}
    for rule, value in worst.items():
        told[bool(value <= bar)].append(f"`{rule}` ({value:.3f})")
    met, missed = (", ".join(told[kept]) or "none" for kept in (True, False))
    reference = gap[gap.rule == REFERENCE]
    return (
        f"At m = {n_steps} a median gap of at most {bar:.0%} of `igi` (squared gradients add up to nothing), in every layer "
        f"(greedy) and jointly (one_pass), in all of {', '.join(dict.fromkeys(gap.pair))}: met by {met}; "
        f"**not met** by {missed} (in brackets the largest median).\n\n"
        f"{_fewest_sentence(table, bar)}\n\n"
        "`stieltjes` is the default of `attribute` and `locate` for these two searches. A run goes by `right`, the paper's, "
        "whose scores rank neurons and are no amounts; where amounts are wanted there, `-p search greedy -p rule stieltjes` "
        f"takes {times:.1f} times as long. The integrals of `stieltjes` add up by construction, but where a share of the "
        "change cannot be had; how good its scores are is their error against "
        f"{reference.n_steps.max()} steps of `{FINE[0]}`, whose own gap is at most {reference.gap.max():.2g}."
    )


def _fewest_sentence(table: pd.Series, bar: float) -> str:
    """From how many steps on rules with fixed points keep the bar; table: largest medians by search, pair, rule and steps."""
    fixed = table[table.index.get_level_values("rule").isin(RULES)]
    fewest = "; ".join(
        f"{where} {_fewest_steps(fixed.xs(search, level='search'), bar)}"
        for search, where in (("greedy", "in every layer"), ("one_pass", "jointly"))
    )
    most = fixed.reset_index().groupby("rule", sort=False).n_steps.max()
    tried = ", ".join(f"`{rule}` {steps}" for rule, steps in most.items())
    return f"Of the rules with fixed points (up to m: {tried}), the fewest steps from which on it is met: {fewest}."


def _fewest_steps(table: pd.Series, bar: float) -> str:
    """The rules that keep the bar for every pair from the fewest steps on, and these; "none" if none does."""
    enough = {}
    for rule, row in table.groupby(["rule", "n_steps"]).max().groupby("rule"):
        kept = (row <= bar).iloc[::-1].cummin()
        if kept.any():
            enough[rule] = kept[kept].index.get_level_values("n_steps").min()
    if not enough:
        return "none"
    fewest = min(enough.values())
    rules = " and ".join(f"`{rule}`" for rule, steps in enough.items() if steps == fewest)
    return f"{rules}, m = {fewest}"
