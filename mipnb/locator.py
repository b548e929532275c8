"""Locating the sets of questions of notebook 02, each by itself, here or in a helper (`lanes`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from torch import nn

from mipnb.artefacts import stage_dir, under_root
from mipnb.benchmarks import Question, draw_questions, forget_ids, load_training, retain_ids
from mipnb.locating import PAIRS, locate, of_modality
from mipnb.models import load_model, load_processor, run_model
from mipnb.params import subset
from mipnb.scores import Scores

STAGE = "02_attribution"


@dataclass(frozen=True, eq=False)
class Locator:
    """Scores the neurons of one branch on one set of questions a call.

    Attributes:
        params: of notebook 02.
        model, processor: vanilla.
        asked: "forget" and "retain" -> questions (`drawn_questions`).
    """

    params: BaseModel
    model: nn.Module
    processor: Any
    asked: Mapping[str, Sequence[Question]]

    def __call__(self, which: tuple[str, str]) -> tuple[Scores, float]:
        """The scores (`locating.locate`) and the seconds they took; a run that was stopped within them goes on there.

        Args:
            which: a key of `locating.PAIRS`, and a key of `asked`.
        """
        p, (pair, group), started = self.params, which, time.perf_counter()
        branch, modality = PAIRS[pair]
        how = self.choices | {"kind": self.kind(pair), "top_k": self.top_k[branch], "completeness": False}
        at = (of_modality(self.asked[group], modality), branch, p.batch_size, p.device)
        found = locate(self.model, self.processor, *at, stage_dir(p.run_dir, STAGE), **how)
        return found, time.perf_counter() - started

    @property
    def choices(self) -> dict[str, Any]:
        """How all scores are computed."""
        return {name: getattr(self.params, name) for name in ("score", "search", "rule", "n_steps")}

    @property
    def top_k(self) -> dict[str, int]:
        """Neurons that each layer of a branch adds to a question's path."""
        return {"text": self.params.text_top_k, "vision": self.params.vision_top_k}

    def kind(self, pair: str) -> str:
        """Of the scores of a pair: "igi" or "ifi"."""
        return self.params.vision_kind if pair == "vision" else "igi"


def drawn_questions(params: BaseModel) -> dict[str, list[Question]]:
    """The training questions that are located on: of the people to forget, and of those to keep."""
    benchmark, rows = (
        under_root(params.benchmark_dir),
        under_root(params.training_dir or params.benchmark_dir),
    )
    sets = {
        "forget": (forget_ids(benchmark, params.forget_ratio), params.n_locate_forget),
        "retain": (retain_ids(benchmark, params.forget_ratio), params.n_locate_retain),
    }
    return {
        group: draw_questions(load_training(rows, ids=ids), count, params.seed)
        for group, (ids, count) in sets.items()
    }


def load_locator(values: Mapping[str, Any]) -> Locator:
    """A locator for a helper, from the values of notebook 02's parameters."""
    params = subset(values)
    vanilla = run_model(stage_dir(params.run_dir, "01_vanilla_model"))
    model = load_model(vanilla, params.dtype, params.device, attention=params.attention)
    return Locator(params, model, load_processor(vanilla), drawn_questions(params))
