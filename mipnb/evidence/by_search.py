"""What a search is worth: the path of its scores silenced, beside those of other searches, on validation people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mipnb.benchmarks import draw_questions
from mipnb.estimators import ESTIMATORS, overlaps
from mipnb.evidence.cases import BRANCHES, Case
from mipnb.evidence.choosing import tried_table
from mipnb.evidence.controls import random_rankings
from mipnb.evidence.measures import branch_marks
from mipnb.evidence.ranked import Ranked, even_sizes
from mipnb.evidence.recipes import fixed_rule, kind_of, size_of, top_k_of
from mipnb.evidence.shares import TRIED_DRAWS, Shares, cases_of, load_shares
from mipnb.evidence.trial import asked_of
from mipnb.evidence.verdicts import MARKS
from mipnb.locating import locate, of_modality
from mipnb.ranking import adjusted, aggregated
from mipnb.scores import Scores

#: how scores become a path: as the paper has it, and set against the retain set as a run does by default
RANKED_BY = ("forget", "contrast")
#: the estimators that integrate by the run's rule
OWN_RULE = tuple(name for name, choices in ESTIMATORS.items() if "rule" not in choices)


def search_marks(case: Case, branch: str, names: Iterable[str] = OWN_RULE) -> pd.DataFrame:
    """Silence the path of each estimator's scores, and as many random neurons.

    Args:
        case: on validation people; `n_locate_forget` and `n_locate_retain` of its parameters say how many questions are
            scored, one modality a branch.
        branch: "text" or "vision".
        names: of ESTIMATORS.

    Returns:
        See `measures.branch_marks`; choices are "<estimator>, <ranking>", with every ranking of RANKED_BY, and "random".
    """
    k, asked, ffns = size_of(case, branch), asked_of(case, branch), case.ffns(branch)
    ranked = [one for name in names for one in _rankings(case, branch, name, k)]
    drawn = random_rankings(ranked[0].values, TRIED_DRAWS, case.params.seed)
    sizes = {k: even_sizes(k, *ranked[0].values.shape)}
    known = {"unit": case.unit, "known": case.shared}
    return branch_marks(case.model, asked, ffns, branch, [*ranked, *drawn], sizes, **known)


def _rankings(case: Case, branch: str, name: str, k: int) -> list[Ranked]:
    forget = _scores(case, branch, "forget", ESTIMATORS[name])
    key = ("by search", branch, name)
    retain = case.remembered(key, lambda: _scores(case, branch, "retain", ESTIMATORS[name]))
    found = {ranking: adjusted(forget, retain, ranking) for ranking in RANKED_BY}
    return [
        Ranked(f"{name}, {ranking}", aggregated(values, forget, "mean", k))
        for ranking, values in found.items()
    ]


def _scores(case: Case, branch: str, group: str, choices: Mapping[str, Any]) -> Scores:
    """Complete scores of some training questions of a set that the branch is judged by."""
    params, (modality,) = case.params, case.modalities(branch)
    drawn = draw_questions(
        of_modality(getattr(case, group), modality), getattr(params, f"n_locate_{group}"), params.seed
    )
    own = {"kind": kind_of(case, branch), "n_steps": params.n_steps, "rule": fixed_rule(params)}
    own |= {"top_k": top_k_of(case, branch), "completeness": False}
    at = (case.model, case.processor, drawn, branch, params.batch_size, params.device)
    return locate(*at, **own | choices)


@dataclass(frozen=True, eq=False)
class Worth:
    """Marks of searches on the trial's validation people, a vanilla model at a time, worked off here or in a helper.

    Attributes:
        shares: the trial's people and vanilla models.
        names: of ESTIMATORS.
    """

    shares: Shares
    names: Sequence[str]

    def __call__(self, vanilla: str) -> dict[str, pd.DataFrame]:
        """Branch -> `search_marks` of all validation cases of the vanilla model of that name."""
        cases = cases_of(self.shares.validation, vanilla)
        return {
            branch: pd.concat([search_marks(case, branch, self.names) for case in cases])
            for branch in BRANCHES
        }


def load_worth(values: Mapping[str, Any], names: Sequence[str] = OWN_RULE) -> Worth:
    """From the values of a notebook's parameters."""
    return Worth(load_shares(values), tuple(names))


def worth_table(marks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What is lost when the paths of searches are silenced.

    Args:
        marks: branch -> `search_marks` of all cases.

    Returns:
        Columns branch, mark ("recall", "probability"), search ("random" among them), ranking (empty for random), then value,
        low, high of necessity, spared and ratio as in `choosing.tried_table`.
    """
    tables = [
        tried_table(table, mark).assign(branch=branch, mark=mark)
        for branch, table in marks.items()
        for mark in MARKS
    ]
    found = pd.concat(tables, ignore_index=True)
    names = found.pop("recipe").str.split(", ", n=1, expand=True)
    return found.assign(search=names[0], ranking=names[1].fillna(""))


def with_overlap(worth: pd.DataFrame, agreement: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """The rows of searches, with a column overlap: with `exact` by the same rule, on questions of the branch's own modality.

    Args:
        worth: `worth_table`.
        agreement: of `bench_locating.agreement`, rows of one rule.
        kinds: branch -> "igi" or "ifi", as it was located.
    """
    rows = overlaps(agreement)
    found = {
        branch: rows[(rows.pair == branch) & (rows.kind == kind)].set_index("estimator").value
        for branch, kind in kinds.items()
    }
    searched = worth[worth.search != "random"]
    own = [found[row.branch][row.search] for row in searched.itertuples()]
    return searched.assign(overlap=own)


def worth_sentences(table: pd.DataFrame, beside: str = "greedy") -> str:
    """Markdown on whose path takes most of the forget set per point of the retain set, and whether overlap goes with it.

    Args:
        table: of `with_overlap`, rows of one mark.
        beside: the search that is told, too.
    """
    lines = []
    for (branch, ranking), part in table.groupby(["branch", "ranking"], sort=False):
        part = part.set_index("search")
        told = {
            name: f"`{name}` {row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f}; necessity {row.necessity:.2f}, "
            f"overlap {row.overlap:.2f})"
            for name, row in part.iterrows()
        }
        order = part[["necessity", "ratio", "overlap"]].astype(float).corr("spearman").overlap
        best = part.ratio.astype(float).idxmax()
        lines.append(
            f"- {branch}, by `{ranking}`: {told[best]}"
            + (f"; {told[beside]}" if best != beside else "")
            + f". Over the {len(part)} searches overlap has a rank correlation of {order.ratio:.2f} with the ratio, and of "
            f"{order.necessity:.2f} with necessity."
        )
    return "\n".join(lines)
