"""The same tuning effort for every method, ours too: a small grid tried on validation people, and a stated rule.

Nobody of a reported forget set is forgotten in these trials, and Test_Set is not read (`pocket.validation`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb import trials
from mipnb.artefacts import atomic_path, read_json, under_root, write_json
from mipnb.baselines import METHODS
from mipnb.editing import edit
from mipnb.edits import Edit
from mipnb.lanes import processes_of, share_out
from mipnb.models import fingerprint, load_model, load_processor
from mipnb.partial import questions_digest
from mipnb.paths import NeuronPath
from mipnb.pocket.validation import ValidationSets, validation_sets
from mipnb.results.store import stored
from mipnb.results.unlearners import TrainingSets, settings_of, training_sets, unlearn
from mipnb.validation import ask, located_paths, neighbours

OURS = "edited"
#: what is tried for ours: as many settings as for each baseline (`baselines.METHODS`)
OUR_GRID = {"learning_rate": (1e-2, 5e-3), "forget_weight": (1.0, 0.5, 2.0)}
FORGET, RETAIN = ("forget", "test_forget"), ("retain", "test_retain")
RULE = (
    "of a method's settings, the one with the highest harmonic mean of 1 - forget (mean mark on people to forget) and retain "
    "(share of the vanilla model's mean mark on people to keep, at most 1)"
)
_LOCATING = (
    "score", "search", "rule", "n_steps", "ranking", "aggregate", "text_top_k", "vision_top_k", "vision_kind",
    "n_locate_forget", "n_locate_retain",
)  # fmt: skip
_TRAINING = (
    "seed",
    "forget_batch",
    "retain_batch",
    "n_forget_batches",
    "n_retain_batches",
    "dtype",
    "max_new_tokens",
)


def grid_of(method: str) -> list[dict[str, Any]]:
    """The settings that are tried for a method, as plain values; ours is `OURS`."""
    grid = _values(method)
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def at_edge(method: str, chosen: Mapping[str, Any]) -> list[str]:
    """The settings chosen at the smallest or the largest value tried: beyond it there may be a better one.

    Args:
        method: a baseline, or `OURS`.
        chosen: setting -> value. Settings of which one or two values were tried have no inside, and are left out.
    """
    tried = {name: values for name, values in _values(method).items() if len(values) > 2}
    return [name for name, values in tried.items() if chosen.get(name) in (min(values), max(values))]


def _values(method: str) -> Mapping[str, Sequence[Any]]:
    """What is tried of each setting of a method."""
    return OUR_GRID if method == OURS else METHODS[method].grid


#: a method, and the settings tried
Unit = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Trial:
    """One trial's people and the vanilla model; what is long is made when it is first needed.

    Attributes:
        params: of the run.
        number: seed of the people.
        model, processor: the vanilla model.
        sets: the people.
        folder: keeps the units of work, so that a stopped call goes on.
    """

    params: BaseModel
    number: int
    model: nn.Module
    processor: Any
    sets: ValidationSets
    folder: Path

    @cached_property
    def training(self) -> TrainingSets:
        """What the baselines train on."""
        return training_sets(self.processor, self.params, self.sets.forget, self.sets.retain)

    @cached_property
    def paths(self) -> list[NeuronPath]:
        """The paths that ours edits."""
        return located_paths(self.model, self.processor, self.sets, self.params)

    @cached_property
    def key(self) -> dict[str, Any]:
        """What all units of the trial depend on."""
        asked = [question for group in self.sets.asked.values() for question in group]
        names = {name: getattr(self.params, name) for name in _TRAINING}
        questions = questions_digest([*asked, *self.sets.forget, *self.sets.retain])
        return {"trial": self.number, "fingerprint": fingerprint(self.model), "questions": questions, **names}

    def settings(self, method: str, tried: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a method with those tried, as plain values; for a unit's key."""
        if method == OURS:
            config = trials.edit_config(self.params.model_copy(update=dict(tried)))
            locating = {name: getattr(self.params, name) for name in (*_LOCATING, "neighbour_batch")}
            return asdict(config) | locating
        return asdict(settings_of(method, self.params, tried))

    def made(self, method: str, tried: Mapping[str, Any]) -> Edit | None:
        """The edit of a method with the settings tried; None for vanilla."""
        p = self.params
        if method == "vanilla":
            return None
        if method == OURS:
            near = neighbours(self.sets, p.seed)
            batches = trials.edit_batches(self.processor, p, self.sets.forget, self.sets.retain, near)
            config = trials.edit_config(p.model_copy(update=dict(tried)))
            return edit(self.model, self.paths, *batches, config, p.seed)[0]
        return unlearn(method, self.model, self.training, settings_of(method, p, tried), p.seed)[0]

    def __call__(self, unit: Unit) -> pd.DataFrame:
        """Marks of a method with the settings tried (split, task, value); none if its loss stopped being finite."""
        method, tried = unit

        def make() -> dict[str, pd.DataFrame]:
            """The setting's marks, made anew."""
            try:
                change = self.made(method, tried)
            except ValueError as error:
                if not str(error).startswith("the loss is"):
                    raise
                return {"marks": pd.DataFrame(columns=["split", "task", "value"])}
            return {"marks": ask(self.model, self.processor, self.sets, self.params, change)}

        settings = {} if method == "vanilla" else self.settings(method, tried)
        return stored(self.folder, {**self.key, "method": method, "settings": settings}, make)["marks"]


def load_trial(params: BaseModel, number: int, folder: str | Path, **sizes: int) -> Trial:
    """A trial on the pocket benchmark; sizes as for `validation_sets`."""
    model, processor = (
        load_model(params.model_dir, params.dtype, params.device),
        load_processor(params.model_dir),
    )
    sets = validation_sets(params.benchmark_dir, number, **sizes)
    return Trial(params, number, model, processor, sets, Path(folder))


def try_all(trial: Trial, methods: Sequence[str], helper: Callable[[], Trial]) -> pd.DataFrame:
    """Try every method's grid, and ask the vanilla model.

    Args:
        trial: the people.
        methods: baselines, and `OURS`.
        helper: loads the trial in a process beside this one.

    Returns:
        One row a method, settings (JSON), split and task: value.
    """
    units: list[Unit] = [
        ("vanilla", {}),
        *((method, tried) for method in methods for tried in grid_of(method)),
    ]
    marks = share_out(trial, units, helper, processes_of(trial.params), "tuning")
    parts = []
    for (method, tried), found in zip(units, marks, strict=True):
        if found.empty:
            found = pd.DataFrame([{"split": "forget", "task": "VQA", "value": float("nan")}])
        parts.append(found.assign(method=method, settings=json.dumps(tried)))
    return pd.concat(parts, ignore_index=True)[["method", "settings", "split", "task", "value"]]


def tuning_table(found: pd.DataFrame) -> pd.DataFrame:
    """Every setting with its scores, and which is chosen by `RULE`.

    Args:
        found: from `try_all`, vanilla among it.

    Returns:
        method, settings, forget (mean mark on people to forget), retain, bystander (share of vanilla's mean mark), chosen,
        then one column a split and task. A setting whose loss stopped being finite has no marks, and is not chosen.
    """
    cells = found.assign(cell=found.split + " " + found.task)
    wide = cells.pivot_table(
        index=["method", "settings"], columns="cell", values="value", sort=False, dropna=False
    )
    wide = wide.reindex(cells[["method", "settings"]].drop_duplicates().itertuples(index=False, name=None))
    vanilla = wide.xs("vanilla", level="method").iloc[0]
    split = wide.columns.str.split(" ").str[0]

    def share(splits: Sequence[str]) -> pd.Series:
        inside = split.isin(splits)
        return wide.loc[:, inside].mean(axis=1) / vanilla[inside].mean()

    scores = pd.DataFrame({"forget": wide.loc[:, split.isin(FORGET)].mean(axis=1), "retain": share(RETAIN)})
    table = scores.assign(bystander=share(("bystander",))).reset_index()
    chosen = [choose(rows) for method, rows in table.groupby("method", sort=False) if method != "vanilla"]
    table["chosen"] = table.index.isin(chosen)
    return pd.concat([table, wide.reset_index(drop=True)], axis=1)


def choose(rows: pd.DataFrame) -> int | None:
    """The index of the row that `RULE` chooses (columns forget, retain); None if no setting has marks."""
    rows = rows.dropna(subset=["forget", "retain"])
    if rows.empty:
        return None
    away, kept = 1 - rows.forget, rows.retain.clip(0, 1)
    return (2 * away * kept / (away + kept).where(away + kept > 0, 1)).idxmax()


def write_tuning(table: pd.DataFrame, trial: Trial, folder: str | Path) -> tuple[Path, Path]:
    """Write tuning.csv (all scores) and tuning.json (the choices, and what they were made on).

    Rows of methods that were not tried now stay, if they were made on the same trial.
    """
    folder = under_root(folder)
    table = _with_earlier(table, trial, folder)
    with atomic_path(folder / "tuning.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    choices = {row.method: json.loads(row.settings) for row in table[table.chosen].itertuples()}
    written = {"rule": RULE, "made_on": _made_on(trial), "choices": choices}
    return folder / "tuning.csv", write_json(folder / "tuning.json", written)


def _made_on(trial: Trial) -> dict[str, Any]:
    """What the choices depend on beside the settings."""
    p = trial.params
    found = {"benchmark": p.benchmark_dir, "trial": trial.number, "fingerprint": fingerprint(trial.model)}
    return found | {
        "edit_steps": p.edit_steps,
        "forget_people": len({q.person_id for q in trial.sets.forget}),
    }


def _with_earlier(table: pd.DataFrame, trial: Trial, folder: Path) -> pd.DataFrame:
    """The table, and the rows of other methods that are written there and were made on the same trial."""
    file = folder / "tuning.csv"
    if not file.is_file() or read_json(folder / "tuning.json").get("made_on") != _made_on(trial):
        return table
    earlier = pd.read_csv(file)
    found = pd.concat([table, earlier[~earlier.method.isin(table.method)]], ignore_index=True)
    order = {name: index for index, name in enumerate(["vanilla", *METHODS, OURS])}
    return found.sort_values("method", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def read_choices(path: str) -> dict[str, dict[str, Any]]:
    """The recorded choices, method -> settings; none for an empty path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of something else.
    """
    if not path:
        return {}
    file = under_root(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"tuning = {path}: there is no such file; run `mipnb tune`, or take the sources' settings: -p tuning ''"
        )
    choices = read_json(file).get("choices")
    if not isinstance(choices, dict):
        raise ValueError(f"{file} has no `choices`; expected what `mipnb tune` writes")
    return choices
