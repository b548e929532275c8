"""What a run is: which notebooks, in which order, and why each has to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mipnb.artefacts import project_root, under_root
from mipnb.checks import check_artefacts, check_inputs, check_rows
from mipnb.outcome import Outcome
from mipnb.params import Params
from mipnb.stages import (
    Stage,
    descendants,
    find_stage,
    load_stages,
    no_longer_read,
    notebook_parameters,
    replaced_reads,
    with_those_read,
)
from mipnb.state import stale_reasons

__all__ = ["Plan", "check_plan", "list_stages", "make_plan", "reasons_to_run"]


@dataclass(frozen=True)
class Plan:
    """What to run: all stages by name, in order; parameters; the run's folder; selected, forced stages."""

    stages: dict[str, Stage]
    params: Params
    run: Path
    selected: tuple[str, ...]
    forced: frozenset[str]

    @property
    def taken(self) -> set[str]:
        """The parameters that the selected notebooks take."""
        return {name for stage in self.selected for name in notebook_parameters(self.stages[stage].notebook)}


def make_plan(
    params: Params,
    *,
    start: str | None = None,
    only: str | None = None,
    force: bool = False,
    extra: Sequence[str] = (),
) -> Plan:
    """Chooses what to run.

    Args:
        params: The run's parameters.
        start: Run this notebook and all that build on it again, whatever their state.
        only: Run this notebook alone, on what is there.
        force: Run again even what is up to date.
        extra: Optional notebooks that are run, too; `all`: every one.

    Raises:
        ValueError: For a notebook that does not exist or is not run, or `only` together with `start` or `extra`.
    """
    if start and only:
        raise ValueError("--from and --only exclude each other: give one of them")
    if only and extra:
        raise ValueError("--only and --with exclude each other: --only runs one notebook, optional or not")
    listed = load_stages(project_root() / "notebooks")
    order = replaced_reads(listed, params)
    wanted = _wanted(order, [*extra, *([start] if start else [])])
    idle = no_longer_read(*([stage for stage in part if stage.name in wanted] for part in (listed, order)))
    selected = tuple(stage.name for stage in order if stage.name in wanted - idle)
    selected = selected if only is None else (find_stage(order, only).name,)
    forced = set(selected) if force else set()
    if start:
        if (name := find_stage(order, start).name) in idle:
            raise ValueError(f"--from {start}: with the paths that the parameters give, {name} is not run")
        forced |= descendants(order, find_stage(order, start).name)
    return Plan(
        {stage.name: stage for stage in order},
        params,
        under_root(params.run_dir),
        selected,
        frozenset(forced),
    )


def _wanted(order: Sequence[Stage], extra: Sequence[str]) -> set[str]:
    """The notebooks that are not optional, and those asked for with all that they read."""
    wanted = {stage.name for stage in order if not stage.optional or "all" in extra}
    for name in set(extra) - {"all"}:
        wanted |= with_those_read(order, find_stage(order, name).name)
    return wanted


def list_stages(plan: Plan) -> list[Outcome]:
    """Returns the state of every selected notebook, without running any."""
    outcomes = {name: Outcome(name) for name in plan.selected}
    for name, outcome in outcomes.items():
        outcome.reasons = reasons_to_run(plan, name)
        waits = [
            read
            for read in plan.stages[name].reads
            if read in outcomes and outcomes[read].state != "up to date"
        ]
        outcome.reasons += [f"after {read}" for read in waits if not outcome.reasons]
        outcome.state = "to run" if outcome.reasons else "up to date"
        outcome.add_costs(plan.run)
    return list(outcomes.values())


def reasons_to_run(plan: Plan, name: str) -> list[str]:
    """Returns why a notebook has to run; empty if it is up to date."""
    found = stale_reasons(plan.stages[name], plan.params, plan.run, plan.stages)
    return found or (["asked for"] if name in plan.forced else [])


def check_plan(plan: Plan) -> None:
    """Checks everything cheap before any work.

    Raises:
        ValueError, FileNotFoundError: See `mipnb.checks`.
    """
    for name in plan.selected:
        reads = [read for read in plan.stages[name].reads if read not in plan.selected]
        if reads:
            check_artefacts(plan.stages[name], plan.stages, plan.run)
    check_inputs(plan.params, plan.taken)
    check_rows(plan.params, plan.taken)
