"""Notebook 06's units of work by name: any method at any of the run's forget ratios, here or in a helper (`lanes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mipnb.artefacts import stage_dir
from mipnb.models import load_model, load_processor, run_model
from mipnb.params import subset
from mipnb.remake import retrained
from mipnb.results.comparison import Comparison
from mipnb.results.store import Tables
from mipnb.results.tuning import OURS, read_choices

REFERENCES = ("vanilla", "retrained")
#: forget ratio, method, seed
Unit = tuple[int, str, int]


@dataclass(frozen=True, eq=False)
class Rounds:
    """Every method at every forget ratio of a run.

    Attributes:
        params: of notebook 06.
        at: forget ratio -> its comparison, the run's own first.
        choices: method -> settings chosen for it (`tuning.read_choices`).
    """

    params: BaseModel
    at: Mapping[int, Comparison]
    choices: Mapping[str, Mapping[str, Any]]

    def __call__(self, unit: Unit) -> Tables:
        """Make and ask one, or take it as it was kept.

        Args:
            unit: the method is one of `REFERENCES`, "edited" (ours), "random" (ours on random neurons; the run's ratio alone)
                or a baseline.
        """
        ratio, method, seed = unit
        comparison = self.at[ratio]
        for other in self.at.values():
            if other is not comparison:
                other.forget_training()
        if method == "vanilla":
            return comparison.vanilla()
        if method == "retrained":
            return comparison.retrained(retrained(self.params, ratio, comparison.folder))
        if self.given(unit):
            edits = stage_dir(self.params.run_dir, "04_editing") / "edits"
            return comparison.given(method, seed, edits / f"{method}_{seed}.safetensors")
        if method == OURS:
            return comparison.ours()
        return comparison.baseline(method, seed, self.choices.get(method, {}))

    def given(self, unit: Unit) -> bool:
        """Whether notebook 04 has made it."""
        return unit[1] in (OURS, "random") and unit[0] == self.params.forget_ratio

    def cost(self, unit: Unit) -> float:
        """How long a unit takes beside others: the steps that it trains."""
        trains = unit[1] not in REFERENCES and not self.given(unit)
        return trains * self.at[unit[0]].effort.edit_steps


def load_rounds(values: Mapping[str, Any]) -> Rounds:
    """The rounds of a run, with its vanilla model, from the values of notebook 06's parameters."""
    params = subset(values)
    folder = stage_dir(params.run_dir, "06_baselines")
    vanilla = run_model(stage_dir(params.run_dir, "01_vanilla_model"))
    model = load_model(vanilla, params.dtype, params.device, attention=params.attention)
    asked = (params, folder, model, load_processor(vanilla))
    ratios = [params.forget_ratio, *(r for r in params.other_ratios if r != params.forget_ratio)]
    at = {ratio: Comparison(*asked, ratio, vanilla.name) for ratio in ratios}
    return Rounds(params, at, read_choices(params.tuning))
