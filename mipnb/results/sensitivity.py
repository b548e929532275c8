"""How the result depends on single settings: each moved by itself, all others at the run's values.

The people asked are those that the run reports. Nothing is chosen by these curves: a default picked here would be picked on
the test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from mipnb import trials
from mipnb.artefacts import require, stage_dir
from mipnb.models import ffns, text_layers
from mipnb.params import subset
from mipnb.paths import NeuronPath, select
from mipnb.results.relocated import relocated_path
from mipnb.results.setting import Setting, load_setting
from mipnb.scores import Scores

#: setting -> factors that its default is multiplied by
FACTORS = {
    "top_k": (0.25, 0.5, 2.0),
    "n_steps": (0.25, 2.0),
    "steering_scale": (0.5, 2.0),
    "retain_weight": (0.0, 3.0),
    "edit_steps": (0.25, 0.5, 2.0),
}
BRANCHES = ("text", "vision")


@dataclass(frozen=True)
class Variation:
    """One setting moved.

    Attributes:
        parameter: its name; `top_k` stands for both branches', moved by the same factor.
        value: what the curve shows: the new value (of top_k, the language layers').
        changes: parameter -> new value.
    """

    parameter: str
    value: float
    changes: Mapping[str, Any]


def variations(params: BaseModel, n_neurons: Mapping[str, int], n_layers: int) -> list[Variation]:
    """Every setting's other values, none of them the default or twice.

    Args:
        params: of the run.
        n_neurons: branch -> neurons of a layer.
        n_layers: language layers.
    """
    found = []
    for parameter, factors in FACTORS.items():
        found += [_moved(params, parameter, factor, n_neurons) for factor in factors]
    layers = [params.layer_index + step for step in (-2, -1, 1, 2)]
    found += [Variation("layer_index", at, {"layer_index": at}) for at in layers if 0 <= at < n_layers]
    unique = {(one.parameter, one.value): one for one in found}
    return [one for one in unique.values() if one.value != default_of(params, one.parameter)]


def default_of(params: BaseModel, parameter: str) -> float:
    """The run's value of a setting."""
    return params.text_top_k if parameter == "top_k" else getattr(params, parameter)


def _moved(params: BaseModel, parameter: str, factor: float, n_neurons: Mapping[str, int]) -> Variation:
    if parameter == "top_k":
        sizes = {
            f"{b}_top_k": min(n_neurons[b], max(1, round(getattr(params, f"{b}_top_k") * factor)))
            for b in BRANCHES
        }
        return Variation(parameter, sizes["text_top_k"], sizes)
    old = getattr(params, parameter)
    value = max(1, round(old * factor)) if isinstance(old, int) else old * factor
    return Variation(parameter, value, {parameter: value})


def varied_paths(
    setting: Setting, one: Variation, located: Sequence[NeuronPath], folder: str | Path
) -> list[NeuronPath]:
    """The paths of a variation: the run's own, other cuts of the run's scores (top_k), or located anew (m).

    Args:
        setting: the model and the run's parameters.
        one: what is moved.
        located: the run's paths.
        folder: `scores/` of notebook 02.
    """
    params = setting.params.model_copy(update=dict(one.changes))
    if one.parameter not in ("top_k", "n_steps"):
        return list(located)
    if one.parameter == "n_steps":
        return [relocated_path(setting, params, branch) for branch in BRANCHES]
    found = []
    for branch in BRANCHES:
        top_k = getattr(params, f"{branch}_top_k")
        files = [Path(folder) / f"{group}_{branch}.safetensors" for group in ("forget", "retain")]
        scores = [Scores.load(require(file, made_by="02_attribution")) for file in files]
        found.append(select(*scores, top_k, params.ranking, params.aggregate, params.benchmark_dir))
    return found


def varied_results(
    setting: Setting, one: Variation, located: Sequence[NeuronPath], folder: str | Path
) -> pd.DataFrame:
    """Locate, edit and ask with one setting moved; a unit of work. Rows as of the results, with parameter and value."""
    params = setting.params.model_copy(update=dict(one.changes))

    def make() -> dict[str, pd.DataFrame]:
        paths = varied_paths(setting, one, located, folder)
        at = (params.seed, paths, trials.edit_config(params), setting.batches(params))
        return {"results": setting.edited("edited", *at)}

    key = {"varied": params.model_dump(exclude={"run_dir", "curve_questions", "processes"})}
    key |= {"located": [[path.branch, path.layers] for path in located]}
    return setting.kept(key, make)["results"].assign(parameter=one.parameter, value_of=float(one.value))


def load_sensitivity(params: BaseModel) -> Setting:
    """The setting of notebook 12: the run's model, and so many questions a person and task as its curves are made of."""
    return load_setting(params, "12_sensitivity", n_each=params.curve_questions)


def variation_trainer(setting: Setting) -> Callable[[Variation], pd.DataFrame]:
    """What locates, edits and asks with one setting moved: `varied_results`, with the run's paths and scores."""
    stages = [stage_dir(setting.params.run_dir, name) for name in ("03_paths", "02_attribution")]
    located, scores = trials.load_paths(stages[0] / "paths", setting.model), stages[1] / "scores"
    return lambda one: varied_results(setting, one, located, scores)


def load_variation_trainer(values: Mapping[str, Any]) -> Callable[[Variation], pd.DataFrame]:
    """The same in a helper (`lanes`), from the values of notebook 12's parameters."""
    return variation_trainer(load_sensitivity(subset(values)))


def default_results(setting: Setting, folder: str | Path) -> pd.DataFrame:
    """The vanilla model and the run's own edit, asked the same questions; two units of work."""
    seed = setting.params.seed
    change = trials.load_edits(folder, [seed], n_random=0)["edited", seed]
    told = {"vanilla": None, "edited": change}
    slices = {
        "vanilla": "",
        "edited": [(part.name, float(part.new.double().sum())) for part in change.slices],
    }
    tables = [
        setting.kept(
            {"default": name, "edit": slices[name]},
            lambda name=name: {"results": setting.results(name, seed, told[name])},
        )["results"]
        for name in told
    ]
    return pd.concat(tables, ignore_index=True)


def sizes_of(setting: Setting) -> tuple[dict[str, int], int]:
    """Neurons of a layer by branch, and the number of language layers."""
    sizes = {branch: ffns(setting.model, branch)[0].n_neurons for branch in BRANCHES}
    return sizes, len(text_layers(setting.model))
