"""The file of a sweep: which runs it means, what is compared, and where they run."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mipnb.artefacts import read_json, under_root, write_json
from mipnb.param_files import parameter_file, parse_value, read_parameters
from mipnb.params import Params

__all__ = [
    "Cluster",
    "Rule",
    "Sweep",
    "SweepFile",
    "SweepRun",
    "read_sweep",
    "stored_sweep",
]

SWEEP = "sweep.json"  # in the sweep's folder: what its workers read


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Rule(_Part):
    """How the best settings are chosen, on validation people (`mipnb.validation`); seeds are averaged.

    Of the settings by which the people to forget are answered rightly in at most `forget_at_most` of the questions,
    the best are those that keep most of all others; if none forgets as much, those that forget most.
    """

    trials: list[int] = Field(min_length=1)
    method: str = "edited"
    forget_at_most: float = Field(0.3, ge=0, le=1)

    def text(self) -> str:
        """The rule in words."""
        return (
            f"on validation people (trials {', '.join(map(str, self.trials))}), method {self.method}: of the settings with "
            f"at most {self.forget_at_most:.2f} right about the people to forget, the one that is right most often about "
            "all others; if there is none, the one that forgets most"
        )


class Cluster(_Part):
    """What a job asks of Slurm.

    Attributes:
        jobs_at_once: the most jobs that run at one time.
        gpus, cpus, mem_gb, hours: of each job; memory empty takes the cluster's default.
        partition, account, qos, constraint: empty takes the cluster's default.
        setup: shell lines before the job, e.g. `module load cuda`.
        requeues: how often a job that ran into its time limit is queued again.
    """

    jobs_at_once: int = Field(8, ge=1)
    gpus: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)
    mem_gb: float | None = Field(None, gt=0)
    hours: float = Field(4.0, gt=0)
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    setup: list[str] = []
    requeues: int = Field(10, ge=0)


class SweepFile(_Part):
    """A sweep as written down.

    Attributes:
        name: of its folder, runs/<name>.
        params: parameter files that all runs share, later ones win.
        set: values that all runs share; they win over the files.
        models: parameter files, one a model; every setting is run with each.
        grid: parameter -> values; all combinations are run.
        runs: settings that are run besides, each a mapping.
        seeds: every setting is run with each.
        methods: rows of the results that are compared; empty takes all.
        best: how the best settings are chosen; without it none are.
        processes: runs at one time on this machine.
        slurm: what jobs ask of a cluster.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    params: list[str] = []
    set: dict[str, Any] = {}
    models: list[str] = []
    grid: dict[str, list[Any]] = {}
    runs: list[dict[str, Any]] = []
    seeds: list[int] = []
    methods: list[str] = []
    best: Rule | None = None
    processes: int = Field(1, ge=1)
    slurm: Cluster = Cluster()


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: its name (and folder), its parameters, and those of them that differ between runs."""

    name: str
    params: Params
    varied: dict[str, Any]

    def label(self) -> str:
        """What tells it from the others, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.varied.items()) or "(defaults)"


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder, its runs, and what its file says."""

    folder: Path
    runs: tuple[SweepRun, ...]
    file: SweepFile

    def store(self) -> Path:
        """Writes what workers read."""
        runs = [{"name": r.name, "params": r.params.model_dump(), "varied": r.varied} for r in self.runs]
        return write_json(self.folder / SWEEP, {"file": self.file.model_dump(), "runs": runs})


def read_sweep(path: str | Path) -> Sweep:
    """Reads a sweep's file, e.g. params/sweep.yaml.

    Raises:
        FileNotFoundError: There is no such file, or no parameter file that it names.
        ValueError: It is no YAML mapping, has unknown or ill-typed entries or parameters, or means one run twice.
    """
    path = parameter_file(str(path))
    if not path.is_file():
        raise FileNotFoundError(f"sweep file {path} is missing; params/sweep.yaml is an example")
    try:
        content = parse_value(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected lines of `name: value`, found {type(content).__name__}")
        file = SweepFile(**content)
        return Sweep(under_root(f"runs/{file.name}"), tuple(_runs(file)), file)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise ValueError(f"in {path}: {'; '.join(told)}") from None
    except ValueError as error:
        raise ValueError(f"in {path}: {error}") from None


def stored_sweep(folder: str | Path) -> Sweep:
    """A sweep as `Sweep.store` wrote it."""
    stored = read_json(Path(folder) / SWEEP)
    runs = tuple(SweepRun(run["name"], Params(**run["params"]), run["varied"]) for run in stored["runs"])
    return Sweep(Path(folder), runs, SweepFile(**stored["file"]))


def _runs(file: SweepFile) -> Iterator[SweepRun]:
    """Yields the runs of a file, in its order; ValueError if two have the same parameters."""
    seen: dict[str, dict] = {}
    for model, given in itertools.product(file.models or [""], _settings(file)):
        files = [parameter_file(name) for name in [*file.params, *([model] if model else [])]]
        params = read_parameters(files, {**file.set, **given})
        name, varied = _name(params), ({"model": Path(model).stem} if model else {}) | given
        if name in seen:
            raise ValueError(f"two runs have the same parameters: {seen[name]} and {varied}; leave one out")
        seen[name] = varied
        yield SweepRun(name, params.model_copy(update={"run_dir": f"runs/{file.name}/{name}"}), varied)


def _settings(file: SweepFile) -> Iterator[dict[str, Any]]:
    """Yields what is set in each run beside the parameters that all share."""
    if empty := [name for name, values in file.grid.items() if not values]:
        raise ValueError(f"grid: {', '.join(empty)} has no values")
    names = list(file.grid)
    points = [dict(zip(names, values, strict=True)) for values in itertools.product(*file.grid.values())]
    points = (points if file.grid else []) + file.runs
    for point in points or [{}]:
        if "run_dir" in point or ("seed" in point and file.seeds):
            raise ValueError(
                f"{point}: run_dir is the sweep's to choose, and seed is in seeds or here, not both"
            )
        yield from ({**point, "seed": seed} for seed in file.seeds) if file.seeds else [point]


def _name(params: Params) -> str:
    """A run's name: a digest of the values that differ from the defaults, so that a longer file keeps its runs."""
    return digest({name: value for name, value in params if value != Params.model_fields[name].default})[:10]


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON can express, `run_dir` left out."""
    rest = {name: part for name, part in value.items() if name != "run_dir"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
