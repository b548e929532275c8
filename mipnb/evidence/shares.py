"""One vanilla model's share of the trial, worked off here or in a helper (`lanes`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
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
from mipnb.models import fingerprint, load_model, load_processor, run_model
from mipnb.params import subset
from mipnb.partial import questions_digest
from mipnb.results.store import stored

#: the k of the curves, each branch's networks being of other sizes
CURVES = {"text": (1, 4, 16, 64, 128, 256), "vision": (12, 128, 256, 448)}
#: neurons per layer that edits are made of
EDITED = (1, 2, 4, 8, 16, 32)
TRIED_DRAWS = 5
#: parameters of notebook 14 that say where things are, how they are computed, how many cases there are, or what the run's own
#: paths and edits are: a unit depends on them through its questions and its model alone
_ELSEWHERE = {
    "run_dir", "second_vanilla_dir", "training_dir", "trial_sets", "trial_people", "trial_kept", "trial_edit_sets",
    "forget_ratio", "use_released_paths", "reuse_paths", "n_edit_seeds", "n_random_edits",
    "batch_size", "eval_batch_size", "device", "attention", "processes",
}  # fmt: skip
#: those that edits alone depend on
_OF_EDITS = {
    "layer_index", "forget_tokens", "retain_tokens", "steering_direction", "steering_scale", "forget_weight",
    "retain_weight", "ce_weight", "learning_rate", "forget_batch", "retain_batch", "neighbour_batch",
    "n_forget_batches", "n_retain_batches", "trial_edit_steps",
}  # fmt: skip
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
        """Marks by branch: of all recipes on validation people, or of the chosen ones; then also "edits".

        Each case's are kept as units (`results.store.stored`), so that a trial that was stopped goes on where it was.
        """
        name, chosen = piece
        if chosen is None:
            cases, mark = cases_of(self.validation, name), self._tried
        else:
            cases, mark = cases_of(self.reported, name), partial(self._marks, chosen)
        marks = {branch: _together(mark(case, branch) for case in cases) for branch in BRANCHES}
        if chosen is None:
            return marks
        edited = (self._edited(case, chosen) for case in cases[: self.params.trial_edit_sets])
        return marks | {"edits": _together(edited)}

    def _tried(self, case: Case, branch: str) -> pd.DataFrame:
        recipes = recipes_for(branch, True)
        key = {"recipes": [repr(recipe) for recipe in recipes], "branch": branch, "draws": TRIED_DRAWS}
        return self._unit(case, key, lambda: tried_marks([case], branch, recipes, TRIED_DRAWS))

    def _marks(self, chosen: Mapping[str, Recipe], case: Case, branch: str) -> pd.DataFrame:
        recipe, steps = chosen[branch], CURVES[branch]
        key = {"recipe": repr(recipe), "branch": branch, "curves": steps}
        return self._unit(case, key, lambda: case_marks(case, branch, recipe, steps))

    def _edited(self, case: Case, chosen: Mapping[str, Recipe]) -> pd.DataFrame:
        """Marks of edits of one forget set, several numbers of neurons."""
        training = training_sets(self.params.benchmark_dir, case.people, self.params)
        key = {"recipes": {branch: repr(recipe) for branch, recipe in chosen.items()}, "edited": EDITED}
        key |= {"training": questions_digest([question for part in training for question in part])}
        key |= self.params.model_dump(include=_OF_EDITS)

        def make() -> pd.DataFrame:
            rankings = edit_rankings(case, chosen, max(EDITED))
            return edits_of(case, cuts(case, rankings, EDITED), training)

        return self._unit(case, key, make)

    def _unit(self, case: Case, key: Mapping[str, Any], make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """One case's marks, made once; `key`: what they depend on beside its model, its questions and the parameters."""
        sets = (case.forget, case.retain, case.others, *case.questions.values())
        whole = self.params.model_dump(exclude=_ELSEWHERE | _OF_EDITS) | {
            "unit": case.unit,
            "fingerprint": fingerprint(case.model),
            "questions": [questions_digest(part) for part in sets],
        }
        folder = stage_dir(self.params.run_dir, "14_trial")
        return stored(folder, whole | key, lambda: {"marks": make()})["marks"]


def _together(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


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
