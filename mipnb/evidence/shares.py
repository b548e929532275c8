"""One vanilla model's share of the trial, worked off here or in a helper (`lanes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb.artefacts import stage_dir, under_root
from mipnb.benchmarks import load_people
from mipnb.evidence.cases import BRANCHES, Case, trial_cases
from mipnb.evidence.choosing import recipes_for, tried_marks
from mipnb.evidence.edited import cuts, edit_rankings, edits_of, training_sets
from mipnb.evidence.people import Roles, draw_roles
from mipnb.evidence.recipes import Recipe
from mipnb.evidence.trial import case_marks
from mipnb.models import load_model, load_processor, run_model
from mipnb.params import subset

#: the k of the curves, each branch's networks being of other sizes
CURVES = {"text": (1, 4, 16, 64, 128, 256), "vision": (12, 128, 256, 448)}
#: neurons per layer that edits are made of
EDITED = (1, 2, 4, 8, 16, 32)
TRIED_DRAWS = 5
#: a vanilla model's name, and the recipe chosen for each branch, or None as long as they are to be chosen
Piece = tuple[str, Mapping[str, Recipe] | None]
Vanilla = tuple[nn.Module, Any]


@dataclass(frozen=True, eq=False)
class Shares:
    """The trial of a run, a vanilla model at a time.

    Attributes:
        params: of notebook 14.
        roles: who is forgotten, kept, located on and asked.
        loaded: name of a vanilla model -> model and processor.
        validation: cases that recipes are chosen on, of all models.
        reported: cases that are reported.
    """

    params: BaseModel
    roles: Roles
    loaded: Mapping[str, Vanilla]
    validation: list[Case]
    reported: list[Case]

    def __call__(self, piece: Piece) -> dict[str, pd.DataFrame]:
        """Marks by branch: of all recipes on validation people, or of the chosen ones; then also "edits"."""
        name, chosen = piece
        if chosen is None:
            return {branch: self._tried(name, branch) for branch in BRANCHES}
        cases = cases_of(self.reported, name)
        marks = {
            branch: pd.concat([case_marks(case, branch, chosen[branch], CURVES[branch]) for case in cases])
            for branch in BRANCHES
        }
        edited = [self._edited(case, chosen) for case in cases[: self.params.trial_edit_sets]]
        return marks | {"edits": pd.concat(edited, ignore_index=True)}

    def _tried(self, name: str, branch: str) -> pd.DataFrame:
        return tried_marks(cases_of(self.validation, name), branch, recipes_for(branch, True), TRIED_DRAWS)

    def _edited(self, case: Case, chosen: Mapping[str, Recipe]) -> pd.DataFrame:
        """Marks of edits of one forget set, several numbers of neurons."""
        training = training_sets(self.params.benchmark_dir, case.people, self.params)
        return edits_of(case, cuts(case, edit_rankings(case, chosen, max(EDITED)), EDITED), training)


def cases_of(cases: list[Case], name: str) -> list[Case]:
    """Those of the vanilla model of that name."""
    return [case for case in cases if case.unit.partition("/")[0] == name]


def load_shares(values: Mapping[str, Any]) -> Shares:
    """The trial of a run, from the values of notebook 14's parameters."""
    params = subset(values)
    root = under_root(params.benchmark_dir)
    ids = [person.person_id for person in load_people(root, "Full_Set")]
    n_validation = min(2, params.trial_sets)
    roles = draw_roles(
        ids, params.seed, params.trial_sets, params.trial_people, params.trial_kept, n_validation
    )
    loaded = _vanillas(params)
    return Shares(params, roles, loaded, *trial_cases(loaded, root, roles, params))


def _vanillas(params: BaseModel) -> dict[str, Vanilla]:
    """The run's vanilla model, and another one if the parameters name it."""
    folders = {"vanilla": run_model(stage_dir(params.run_dir, "01_vanilla_model"))}
    if params.second_vanilla_dir:
        folders["second"] = under_root(params.second_vanilla_dir)
    at = (params.dtype, params.device)
    return {
        name: (load_model(place, *at, attention=params.attention), load_processor(place))
        for name, place in folders.items()
    }
