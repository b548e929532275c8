"""Paths located anew, with some parameter of locating moved and everything else as notebooks 02 and 03 have it."""

from __future__ import annotations

from pydantic import BaseModel

from mipnb.benchmarks import draw_questions
from mipnb.locating import PAIRS, locate, of_modality
from mipnb.paths import NeuronPath, select
from mipnb.results.setting import Setting
from mipnb.scores import Scores


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
