"""Table 2, the ablation: what each part of the method does, every row trained and asked alike, beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from mipnb import trials
from mipnb.artefacts import project_root
from mipnb.evaluation import aggregate
from mipnb.evidence.controls import largest_activation
from mipnb.params import subset
from mipnb.partial import batches_digest
from mipnb.paths import NeuronPath
from mipnb.plotting import MAIN_METRIC
from mipnb.results.full_model import edit_full_model
from mipnb.results.rankings import branch_sums, located_questions
from mipnb.results.relocated import NEAREST, nearest_paths
from mipnb.results.setting import MAIN_TASKS, Batches, Setting, load_setting
from mipnb.reuse import edited_paths
from mipnb.rmisu import EditConfig


@dataclass(frozen=True)
class Row:
    """A row of the ablation.

    Attributes:
        method: its name in the results.
        title: what it is.
        published: its name in the paper's Table 2; "" if the paper has no such row.
        taken: whether notebook 04 has made it and 05 has asked it.
        once: whether it is trained with no seed, since nothing in it is drawn.
    """

    method: str
    title: str
    published: str
    taken: bool = False
    once: bool = False


ROWS = (
    Row("text_only", "text path only", "Ours (IGI)"),
    Row("vision_only", "vision path only", "Ours (IFI)"),
    Row("point_wise", "largest activations in place of the path", "Ours-Path"),
    Row("nearest", f"path by {NEAREST}, nearest to exact", ""),
    Row("nearest_prune", f"path by {NEAREST} pruned, no RMisU", "", once=True),
    Row("prune", "path pruned, no RMisU", "Ours-Edit", taken=True),
    Row("fine_tuning", "path pruned, plain fine-tuning", "Ours-RMisU"),
    Row("full_model", "RMisU of the full model, no path", "RMisU"),
    Row("edited", "ours", "Ours", taken=True),
    Row("random", "ours on random neurons", "", taken=True),
)
TITLES = {row.method: row.title for row in ROWS}
TRAINED = tuple(row.method for row in ROWS if not row.taken)
RELOCATED = ("nearest", "nearest_prune")


def point_wise_paths(setting: Setting, located: Sequence[NeuronPath]) -> list[NeuronPath]:
    """As many neurons in every layer as the located paths have, by mean |activation| on the forget set's questions."""
    asked, found = located_questions(setting), []
    for path in located:
        ranked = largest_activation(list(branch_sums(setting, asked, path.branch, "forget").values()))
        found.append(ranked.path(path.branch, path.sizes, path.fingerprint, path.benchmark))
    return found


def relocates(params: BaseModel) -> bool:
    """Whether the path by NEAREST is another than the run's, which was given, or located by another search."""
    return params.search != NEAREST or bool(params.reuse_paths or params.use_released_paths)


def units(params: BaseModel) -> list[tuple[str, int]]:
    """(method, seed) of all that is trained: rows in order, each with the run's seed and as many more as are asked for.

    Where the run's own path was located by NEAREST, rows by it would be those of the run, and are left out.
    """
    seeds = [params.seed + index for index in range(params.n_ablation_seeds)]
    rows = [row for row in ROWS if row.method in TRAINED]
    if not relocates(params):
        rows = [row for row in rows if row.method not in RELOCATED]
    return [(row.method, seed) for row in rows for seed in (seeds[:1] if row.once else seeds)]


def row_paths(setting: Setting, method: str, located: Sequence[NeuronPath]) -> list[NeuronPath]:
    """The neurons that a trained row edits; none for the full model."""
    if method == "full_model":
        return []
    if method == "point_wise":
        return point_wise_paths(setting, located)
    if method in RELOCATED:
        return nearest_paths(setting)
    only = {"text_only": "text", "vision_only": "vision"}.get(method)
    return [path for path in located if only in (None, path.branch)]


def row_config(method: str, config: EditConfig) -> EditConfig:
    """Ours, but for fine-tuning, L_CE on the retain set alone, and for what is pruned and not trained."""
    changes = {"fine_tuning": {"forget_weight": 0.0, "retain_weight": 0.0}, "nearest_prune": {"n_steps": 0}}
    return replace(config, **changes.get(method, {}))


def row_results(
    setting: Setting,
    method: str,
    seed: int,
    located: Sequence[NeuronPath],
    config: EditConfig,
    batches: Batches,
) -> pd.DataFrame:
    """Train a row of `TRAINED` with one seed and ask it; a unit of work.

    Args:
        setting: model and questions, with the parameters of editing.
        method: a name of TRAINED.
        seed: of the training.
        located: the run's paths.
        config: of RMisU.
        batches: of the forget and the retain set, neighbours among the latter.

    Raises:
        ValueError: a method that is not trained here.
    """
    if method not in TRAINED:
        raise ValueError(f"row {method!r} is not one of those trained here: {', '.join(TRAINED)}")
    if method == "full_model":
        return _full_model(setting, seed, config, batches)
    if method == "fine_tuning":  # neighbours have no answers to be tuned on
        batches = (batches[0], [batch for batch in batches[1] if "labels" in batch])
    paths = row_paths(setting, method, located)
    return setting.edited(method, seed, paths, row_config(method, config), batches)


def _full_model(setting: Setting, seed: int, config: EditConfig, batches: Batches) -> pd.DataFrame:
    rate = setting.params.full_learning_rate

    def make() -> dict[str, pd.DataFrame]:
        change, _ = edit_full_model(setting.model, *batches, config, seed, rate)
        return {"results": setting.results("full_model", seed, change)}

    key = {"method": "full_model", "seed": seed, "config": asdict(config), "learning_rate": rate}
    return setting.kept(key | {"batches": [batches_digest(part) for part in batches]}, make)["results"]


def row_trainer(
    setting: Setting, located: Sequence[NeuronPath], config: EditConfig
) -> Callable[[tuple[str, int]], pd.DataFrame]:
    """What trains and asks the row of a (method, seed): `row_results`, with the setting's batches."""
    batches = setting.batches()
    return lambda which: row_results(setting, *which, located, config, batches)


def load_row_trainer(values: Mapping[str, Any]) -> Callable[[tuple[str, int]], pd.DataFrame]:
    """The same in a helper (`lanes`), from the values of notebook 09's parameters."""
    params = subset(values)
    setting = load_setting(params, "09_ablation")
    return row_trainer(setting, edited_paths(params, setting.model), trials.edit_config(params))


def all_rows(setting: Setting, taken: pd.DataFrame, trained: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all methods in the tidy form of the results: vanilla and those of notebook 05, and the trained ones.

    Args:
        setting: of notebook 09.
        taken: the results of notebook 05.
        trained: from `row_results`.
    """
    names = ["vanilla", *(row.method for row in ROWS if row.taken)]
    kept = taken[
        taken.method.isin(names) & taken.split.isin(list(setting.asked)) & taken.task.isin(MAIN_TASKS)
    ]
    return pd.concat([kept, *trained], ignore_index=True)


def main_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of each task's main metric, vanilla first and then in the order of ROWS."""
    means = aggregate(results)
    means = means[means.task.map(MAIN_METRIC) == means.metric]
    order = ["vanilla", *TITLES]
    return means.sort_values("method", key=lambda column: column.map(order.index), kind="stable").reset_index(
        drop=True
    )


def ablation_table(results: pd.DataFrame, splits: Sequence[str] = ("forget", "retain")) -> pd.DataFrame:
    """One row a method, a column a split and task (FVQA, RVQA, ...): "0.03 [0.01, 0.09]", mean of seeds and 95 % interval."""
    rows = main_rows(results)
    rows = rows[rows.split.isin(list(splits))]
    text = [f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in rows.itertuples()]
    return _wide(rows.assign(text=text), "text").rename(index=TITLES)


def _wide(rows: pd.DataFrame, values: str) -> pd.DataFrame:
    columns = [f"{split[-6:][0].upper()}{task}" for split, task in zip(rows.split, rows.task, strict=True)]
    table = rows.assign(column=columns).pivot(index="method", columns="column", values=values)
    order = [f"{side}{task}" for task in MAIN_TASKS for side in "FR" if f"{side}{task}" in table]
    return table.loc[list(dict.fromkeys(rows.method)), order].rename_axis(index=None, columns=None)


def published_table(path: str | Path = "data/published/table2.csv") -> pd.DataFrame:
    """The paper's Table 2 in the same form, rows named by our methods' titles; tasks that it lacks are left out."""
    table = pd.read_csv(project_root() / path)
    names = {row.published: row.method for row in ROWS if row.published}
    rows = table[table.variant.isin(names)].assign(method=table.variant.map(names))
    wide = _wide(rows, "value")
    return wide.loc[[row.method for row in ROWS if row.method in wide.index]].rename(index=TITLES)


def side_by_side_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Ours (pocket) and the paper's (Qwen2.5-VL-3B, MLLMU-Bench) in one table of numbers: columns (source, task)."""
    rows = main_rows(results)
    ours = _wide(rows[rows.split.isin(["forget", "retain"])], "value").rename(index=TITLES)
    return pd.concat({"here": ours, "paper": published_table().reindex(ours.index)}, axis=1)
