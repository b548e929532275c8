"""In which order a sweep's runs start: first those that make what others share, so that nobody waits who need not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mipnb.plan import Plan, check_plan, make_plan
from mipnb.stages import notebook_parameters
from mipnb.sweeps.plan import SweepRun

__all__ = ["check_runs", "split_leaders"]

#: parameters that `mipnb.checks` looks at: runs that agree on them are checked once
_CHECKED = (
    "benchmark_dir", "benchmark", "benchmark_revision", "training_dir", "training_revision", "forget_ratio", "judge_dir",
    "base_dir", "base_revision", "model_dir", "model_revision", "retrain", "retrain_by", "text_top_k", "vision_top_k",
    "layer_index", "reuse_paths", "use_released_paths",
)  # fmt: skip


def check_runs(runs: Sequence[SweepRun]) -> None:
    """Refuses what would fail anyway, before any work (see `mipnb.checks`), and names the run."""
    seen = set()
    for run in runs:
        key = json.dumps([getattr(run.params, name) for name in _CHECKED])
        if key not in seen:
            seen.add(key)
            try:
                check_plan(make_plan(run.params))
            except (ValueError, FileNotFoundError) as error:
                raise type(error)(f"run {run.label()}: {error}") from None


def split_leaders(runs: Sequence[SweepRun]) -> tuple[list[SweepRun], list[SweepRun]]:
    """Parts runs into those that come first to a notebook that others share, and the rest, each in the order given.

    Whether a notebook is shared is foretold by the parameters that it and those before it take.
    """
    taken: dict[Path, tuple[str, ...]] = {}
    parts = {run.name: _lineages(make_plan(run.params), taken) for run in runs}
    count = Counter(part for lineages in parts.values() for part in lineages)
    seen, leaders, rest = set(), [], []
    for run in runs:
        shared = {part for part in parts[run.name] if count[part] > 1}
        (leaders if shared - seen else rest).append(run)
        seen |= shared
    return (leaders, rest) if seen else ([], list(runs))


def _lineages(plan: Plan, taken: dict[Path, tuple[str, ...]]) -> set[str]:
    """A name for each notebook of a run, by the parameters of it and of all that it builds on."""
    found: dict[str, dict] = {}
    for name in plan.selected:
        stage = plan.stages[name]
        if stage.notebook not in taken:
            taken[stage.notebook] = tuple(notebook_parameters(stage.notebook))
        values = {one: getattr(plan.params, one) for one in taken[stage.notebook] if one != "run_dir"}
        for read in stage.reads:
            values |= found.get(read, {})
        found[name] = values
    return {json.dumps([name, values], sort_keys=True) for name, values in found.items()}
