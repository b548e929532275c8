"""The measures of the trial: neurons removed, or kept alone, and what becomes of the forget and the retain set.

Necessity is what is lost when the chosen neurons are silenced; sufficiency what is left when they alone act and all
other neurons of the branch are held at their means over other people. Over many k both become curves: `remove`, and
`keep`, which is the paper's Fig. 4 with means in place of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence

import pandas as pd
from torch import Tensor, nn

from mipnb.edits import Edit
from mipnb.evidence.activations import activation_sums, keeping, removing
from mipnb.evidence.asked import Ablation, Asked, answer_marks, untouched
from mipnb.evidence.ranked import Ranked
from mipnb.models import FFN

MEASURES = ("remove", "keep")
NOTHING = "nothing"
#: what tells the rows of a table of marks apart, beside set, modality and person
LABELS = ["unit", "branch", "measure", "choice", "draw", "k"]
Sizes = Mapping[int, Sequence[int]]


def means_of(model: nn.Module, others: Asked, ffns: Sequence[FFN], branch: str) -> Tensor:
    """Mean activations over other people's questions, float32 (kinds, layers, n_neurons)."""
    return activation_sums(model, others, ffns, branch).means()


def branch_marks(
    model: nn.Module,
    asked: Asked,
    ffns: Sequence[FFN],
    branch: str,
    ranked: Sequence[Ranked],
    sizes: Sizes,
    means: Tensor | None = None,
    unit: str = "",
    known: MutableMapping | None = None,
) -> pd.DataFrame:
    """Put rankings of one branch through necessity and, if means are given, sufficiency.

    Args:
        model: in eval mode; left as found.
        asked: questions of the sets "forget" and "retain"; for the vision branch those with pictures.
        ffns: the branch's networks.
        branch: "text" or "vision".
        ranked: the choices.
        sizes: k -> neurons per layer; several make curves.
        means: from `means_of`, of people who are not asked; None leaves `keep` out.
        unit: label of the forget set and model.
        known: marks of the retain set that other forget sets of this model, asked beside the same people to keep, have
            left: the same neurons (random draws) are not asked it again. What is new is added.

    Returns:
        One row a choice, draw, measure, k, set, modality and person: LABELS, then the columns of `answer_marks`; first
        the untouched model, whose choice is "nothing".
    """
    both = _Both(model, asked, known)
    tables = [_labelled(both.marks((branch,), untouched), unit, branch, NOTHING, NOTHING, 0, 0)]
    for k, counts in sizes.items():
        for one in ranked:
            neurons = one.top(counts)
            ablations = {"remove": removing(ffns, neurons)}
            if means is not None:
                ablations["keep"] = keeping(model, ffns, branch, neurons, means)
            for measure, ablation in ablations.items():
                marks = both.marks((branch, measure, neurons), ablation)
                tables.append(_labelled(marks, unit, branch, measure, one.choice, one.draw, k))
    return pd.concat(tables, ignore_index=True)


class _Both:
    """Marks of the forget and of the retain set, those of the latter once for each set of neurons.

    Args:
        model, asked, known: see `branch_marks`.
    """

    def __init__(self, model: nn.Module, asked: Asked, known: MutableMapping | None):
        self.model, self.known = model, known
        self.parts = (asked,) if known is None else (asked.only(set="forget"), asked.only(set="retain"))

    def marks(self, key: tuple, ablation: Ablation) -> pd.DataFrame:
        """As `answer_marks`; `key` tells what is done to the model."""
        *first, last = self.parts
        tables = [answer_marks(self.model, part, ablation) for part in first]
        known = {} if self.known is None else self.known
        key = ("marks", *key, tuple(last.rows.person_id))
        if key not in known:
            known[key] = answer_marks(self.model, last, ablation)
        return pd.concat([*tables, known[key]], ignore_index=True)


def edit_marks(
    model: nn.Module, asked: Asked, edits: Mapping[tuple[str, int, int], Edit], unit: str = ""
) -> pd.DataFrame:
    """What edits leave of the forget and the retain set, in the same table.

    Args:
        model: vanilla; left as found.
        asked: questions of the sets "forget" and "retain".
        edits: (choice, draw, k) -> an edit.
        unit: label of the forget set and model.

    Returns:
        As `branch_marks`, with branch "both" and measure "edit".
    """
    tables = [_labelled(answer_marks(model, asked), unit, "both", NOTHING, NOTHING, 0, 0)]
    for (choice, draw, k), change in edits.items():
        with change.applied(model):
            tables.append(_labelled(answer_marks(model, asked), unit, "both", "edit", choice, draw, k))
    return pd.concat(tables, ignore_index=True)


def layer_effects(model: nn.Module, asked: Asked, ffns: Sequence[FFN], ranked: Ranked, k: int) -> list[float]:
    """How much more of F the forget set than the retain set loses when one layer's top k are silenced, a layer each.

    Args:
        model, asked, ffns: as in `branch_marks`.
        ranked: one ranking.
        k: neurons silenced.

    Returns:
        Per layer at least 0; weights for `ranked.weighted_sizes`.
    """
    before = _probability(answer_marks(model, asked))
    effects = []
    for layer in range(len(ffns)):
        neurons = ranked.top([k if index == layer else 0 for index in range(len(ffns))])
        fall = before - _probability(answer_marks(model, asked, removing(ffns, neurons)))
        effects.append(max(0.0, float(fall["forget"] - fall["retain"])))
    return effects


def _probability(marks: pd.DataFrame) -> pd.Series:
    return marks.groupby("set").probability.mean()


def _labelled(marks: pd.DataFrame, *labels: object) -> pd.DataFrame:
    named = pd.DataFrame([labels] * len(marks), columns=LABELS)
    return pd.concat([named, marks], axis=1)
