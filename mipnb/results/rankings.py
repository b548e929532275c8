"""Rankings of all neurons: the path's own, point-wise ones, random ones.

Point-wise choices look at each neuron for itself and take no gradient: the largest mean |activation| on the forget set,
that less the same on the retain set (both as shares of their layer), and MANU's importances. All are made of the very
training questions that the path was located on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from torch import Tensor

from mipnb.artefacts import require
from mipnb.benchmarks import draw_questions
from mipnb.evidence.activations import Sums, activation_sums
from mipnb.evidence.asked import Asked, prepare
from mipnb.evidence.controls import largest_activation, manu, random_rankings
from mipnb.evidence.ranked import Ranked
from mipnb.models import BRANCHES, ffns
from mipnb.ranking import adjusted, aggregated
from mipnb.results.setting import Setting
from mipnb.scores import Scores

CHOICES = ("path", "activation", "activation_contrast", "manu", "random")


def all_rankings(setting: Setting, folder: str | Path, n_draws: int) -> dict[str, list[Ranked]]:
    """Every neuron of both branches, ranked by each of CHOICES.

    Args:
        setting: with parameters of locating (ranking, aggregate, numbers of questions).
        folder: `scores/` of notebook 02.
        n_draws: random rankings a branch.

    Returns:
        Branch -> rankings.
    """
    p = setting.params
    asked = located_questions(setting)
    found = {}
    for branch in BRANCHES:
        forget, retain = (
            Scores.load(require(Path(folder) / f"{group}_{branch}.safetensors", made_by="02_attribution"))
            for group in ("forget", "retain")
        )
        path = path_ranking(forget, retain, p, getattr(p, f"{branch}_top_k"))
        found[branch] = [
            path,
            *point_wise(setting, asked, branch),
            *random_rankings(path.values, n_draws, p.seed),
        ]
    return found


def path_ranking(forget: Scores, retain: Scores, params: BaseModel, top_k: int) -> Ranked:
    """The path's ranking of all neurons; cut at the run's top_k it is the path (for `union`, which ranks nothing, votes)."""
    aggregate = "vote" if params.aggregate == "union" else params.aggregate
    values = adjusted(forget, retain, params.ranking)
    return Ranked("path", aggregated(values, forget, aggregate, top_k))


def located_questions(setting: Setting) -> Asked:
    """The training questions that the path was located on, encoded."""
    p, (forget, retain, _) = setting.params, setting.training
    drawn = {
        "forget": draw_questions(forget, p.n_locate_forget, p.seed),
        "retain": draw_questions(retain, p.n_locate_retain, p.seed),
    }
    return prepare(setting.processor, drawn, p.batch_size, p.device)


def branch_sums(setting: Setting, asked: Asked, branch: str, group: str) -> dict[str, Sums]:
    """Sums of a branch's activations on a set's questions, by modality; vision FFNs see questions with pictures only."""
    seen = ("text", "image_text") if branch == "text" else ("image_text",)
    at = (ffns(setting.model, branch), branch)
    return {
        modality: activation_sums(setting.model, asked.only(set=group, modality=modality), *at)
        for modality in seen
    }


def point_wise(setting: Setting, asked: Asked, branch: str) -> list[Ranked]:
    """The choices that look at each neuron for itself."""
    sums = [branch_sums(setting, asked, branch, group) for group in ("forget", "retain")]
    forget, retain = (list(part.values()) for part in sums)
    return [largest_activation(forget), activation_contrast(forget, retain), manu(*sums)]


def activation_contrast(forget: Sequence[Sums], retain: Sequence[Sums]) -> Ranked:
    """Mean |activation| on the forget set less that on the retain set, both as shares of their layer's sum."""
    shares = [_share(largest_activation(part).values) for part in (forget, retain)]
    return Ranked("activation_contrast", shares[0] - shares[1])


def _share(values: Tensor) -> Tensor:
    return values / values.sum(-1, keepdim=True).clamp_min(1e-12)
