"""Paths located anew, with some parameter of locating moved and everything else as notebooks 02 and 03 have it."""

from __future__ import annotations

import pandas as pd
from pydantic import BaseModel

from mipnb.attribution import SEARCH
from mipnb.benchmarks import draw_questions
from mipnb.evidence.recipes import fixed_rule
from mipnb.locating import PAIRS, locate, of_modality
from mipnb.models import BRANCHES, ffns
from mipnb.partial import questions_digest
from mipnb.paths import NeuronPath, select
from mipnb.results.setting import Setting
from mipnb.scores import Scores
from mipnb.searches import SHORTLIST

NEAREST = SEARCH  # the search nearest to `exact`, whatever the run's is
#: parameters that a path depends on
_LOCATED = (
    "search", "score", "rule", "n_steps", "vision_kind", "ranking", "aggregate", "text_top_k", "vision_top_k",
    "n_locate_forget", "n_locate_retain", "seed", "forget_ratio", "training_dir",
)  # fmt: skip


def relocated_path(setting: Setting, params: BaseModel, branch: str) -> NeuronPath:
    """The path of a branch by other parameters; scores are kept in the setting's folder until its notebook is through.

    Args:
        setting: the model, its processor and the training questions.
        params: of locating and cutting.
        branch: "text" or "vision".
    """
    top_k = getattr(params, f"{branch}_top_k")
    scores = [_located(setting, params, group, branch, top_k) for group in (0, 1)]
    return select(*scores, top_k, params.ranking, params.aggregate, params.benchmark_dir)


def _located(setting: Setting, params: BaseModel, group: int, branch: str, top_k: int) -> Scores:
    """Scores of the forget (0) or the retain set (1), as notebook 02 makes them."""
    counts = (params.n_locate_forget, params.n_locate_retain)
    drawn = draw_questions(setting.training[group], counts[group], params.seed)
    choices = {name: getattr(params, name) for name in ("score", "search", "rule", "n_steps")}
    choices |= {
        "kind": "igi" if branch == "text" else params.vision_kind,
        "top_k": top_k,
        "completeness": False,
    }
    at = (branch, params.batch_size, params.device)
    asked = of_modality(drawn, PAIRS[branch][1])
    return locate(setting.model, setting.processor, asked, *at, resume=setting.folder, **choices)


def nearest_paths(setting: Setting) -> list[NeuronPath]:
    """The paths of both branches, located by NEAREST and else as the run's (by the paper's rule, if that one has points by
    sample, which NEAREST cannot go by); a unit of work."""
    moved = {"search": NEAREST, "rule": fixed_rule(setting.params)}
    params = setting.params.model_copy(update=moved)

    def make() -> dict[str, pd.DataFrame]:
        """Both paths' neurons, a row each: branch, layer, neuron."""
        paths = [relocated_path(setting, params, branch) for branch in BRANCHES]
        rows = [
            (path.branch, layer, neuron)
            for path in paths
            for layer, neurons in enumerate(path.layers)
            for neuron in neurons
        ]
        return {"neurons": pd.DataFrame(rows, columns=["branch", "layer", "neuron"])}

    key = {"located": {name: getattr(params, name) for name in _LOCATED}, "candidates": SHORTLIST}
    key |= {"training": [questions_digest(part) for part in setting.training[:2]]}
    neurons = setting.kept(key, make)["neurons"]
    return [_read(setting, branch, neurons[neurons.branch == branch]) for branch in BRANCHES]


def _read(setting: Setting, branch: str, neurons: pd.DataFrame) -> NeuronPath:
    networks = ffns(setting.model, branch)
    layers = tuple(
        tuple(neurons.neuron[neurons.layer == layer].sort_values().tolist()) for layer in range(len(networks))
    )
    return NeuronPath(branch, layers, networks[0].n_neurons, setting.mark, setting.labels["benchmark"])
