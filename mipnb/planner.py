"""`mipnb estimate`: memory, passes, batch sizes and hours of a run on a GPU, from the model's configuration alone.

Steps are those of the notebooks: locating (02), editing (04), evaluating (05), without their diagnostics. A GPU's
throughput is stated (`GPUS`), and how much of it is used; both can be given. Hours are arithmetic at that rate or
weights read at the memory's bandwidth, whichever takes longer: an order of magnitude, no measurement.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mipnb import passes
from mipnb.attribution import most_rows
from mipnb.checks import check_sizes
from mipnb.costs import BYTES, FLOAT32, Costs
from mipnb.locating import PAIRS
from mipnb.params import Params
from mipnb.passes import Editing, Pass, Visited, totals
from mipnb.rules import check_search
from mipnb.search_passes import Search, locating
from mipnb.shapes import Shape, find_config, read_shape
from mipnb.workload import Workload, read_workload

GIB, GB, TERA = 2**30, 1e9, 1e12
USABLE = 0.9  # of a GPU's memory; the rest is its driver's, fragments, and what kernels need inside
UTILISATION = 0.3


@dataclass(frozen=True)
class Gpu:
    """A GPU by its memory, GiB, with the throughput assumed for it: TFLOP/s (16 and 32 bit), bandwidth in GB/s."""

    memory: int
    name: str
    tflops: float
    tflops_float32: float
    bandwidth: float


#: peak figures of dense matrix products as their makers state them
GPUS = (
    Gpu(24, "A10", 125, 31, 600),
    Gpu(40, "A100", 312, 19.5, 1555),
    Gpu(80, "A100", 312, 19.5, 2039),
)


@dataclass(frozen=True)
class Step:
    """What one step of a run takes on one GPU.

    Attributes:
        name: "locating", "editing" or "evaluating".
        gpu: which.
        asked: the parameter's batch size (editing: retain questions).
        fits: the largest power of two that fits; 0 if not even one does.
        batch: what is planned with, the smaller of the two.
        weights, optimiser, activations: bytes; the optimiser's with the trained values and their gradients.
        waiting: bytes of prepared batches in CPU memory.
        forward, backward: numbers of passes.
        hours: all of them; NaN if nothing fits.
    """

    name: str
    gpu: Gpu
    asked: int
    fits: int
    batch: int
    weights: int
    optimiser: int
    activations: int
    waiting: int
    forward: int
    backward: int
    hours: float

    @property
    def peak(self) -> int:
        """Bytes in all on the GPU."""
        return self.weights + self.optimiser + self.activations


@dataclass(frozen=True)
class Load:
    """What a step makes at some batch size: its passes, each with what it costs; bytes beside the weights.

    What is prepared waits in CPU memory.
    """

    parts: tuple[tuple[Costs, list[Pass]], ...]
    optimiser: int = 0
    prepared: int = 0
    times: int = 1

    @property
    def activations(self) -> int:
        """Bytes at the peak."""
        return max(costs.peak(one) for costs, found in self.parts for one in found)

    @property
    def counts(self) -> tuple[int, int]:
        """Forward and backward passes."""
        forward, backward = totals([one for _, found in self.parts for one in found])
        return forward * self.times, backward * self.times

    def seconds(self, flops: float, bandwidth: float) -> float:
        """Time at a rate, operations and bytes a second."""
        each = (
            max(costs.flops(one) / flops, costs.traffic(one) / bandwidth)
            for costs, found in self.parts
            for one in found
        )
        return self.times * sum(each)


def read_plan(params: Params) -> tuple[Shape, Workload]:
    """Model and benchmark of a run's parameters; the base model stands in for a vanilla one that is still to be made.

    Raises:
        ValueError: no configuration of the model, or no assumptions for the benchmark, see `shapes`, `workload`.
    """
    check_search(params.search, params.rule, params.score)
    shape = _shape(*_models(params))
    sizes = {
        branch: (tower.layers, tower.neurons)
        for branch, tower in (("text", shape.text), ("vision", shape.vision))
    }
    check_sizes(params, ("text_top_k", "vision_top_k", "layer_index"), sizes)
    return shape, read_workload(params.benchmark_dir, params.forget_ratio, shape)


def _models(params: Params) -> list[str]:
    """Where the model's configuration may be: the shipped base stands in for none but the shipped vanilla model."""
    shipped = {name: Params.model_fields[name].default for name in ("model_dir", "base_dir")}
    known = (
        params.retrain or params.model_dir == shipped["model_dir"] or params.base_dir != shipped["base_dir"]
    )
    return [params.model_dir, params.base_dir] if known else [params.model_dir]


@functools.lru_cache(maxsize=16)
def _shape(*names: str) -> Shape:
    return read_shape(*find_config(*names))


def locating_load(params: Params, shape: Shape, work: Workload, batch: int) -> Load:
    """Notebook 02: each branch and modality, on questions of both sets."""
    parts = []
    for branch, modality in PAIRS.values():
        tower, pictured = getattr(shape, branch), int(modality != "text")
        how = (params.search, params.n_steps, params.score == "joint")
        rows = most_rows(params.search, batch, params.n_steps)
        search = Search(branch, tower.layers, tower.neurons, *how, rule=params.rule, max_rows=rows)
        limits = (params.n_locate_forget, params.n_locate_retain)
        for there, limit in zip(work.trained_on(pictured), limits, strict=True):
            found = locating(search, work.questions[pictured], min(there, limit), batch)
            costs = Costs(shape, branch, BYTES[params.dtype], arithmetic=FLOAT32)
            parts.append((costs, found))
    return Load(tuple(parts))


def editing_load(params: Params, shape: Shape, work: Workload, batch: int) -> Load:
    """Notebook 04: an edit a seed, and the random ones; other batches keep their proportion to the retain batch."""
    n_edits = params.n_edit_seeds + min(params.n_random_edits, params.n_edit_seeds)
    visited = tuple(_visited(params, work, batch / params.retain_batch))
    last = params.layer_index == shape.text.layers - 1
    edit = Editing(params.edit_steps, params.layer_index, visited, n_edits=n_edits, last=last)
    costs = Costs(shape, "text", BYTES[params.dtype], _path_sizes(params, shape, work))
    found = passes.editing(edit, work.questions)
    return Load(((costs, found),), costs.optimiser(), costs.prepared(edit, work.questions))


def _visited(params: Params, work: Workload, share: float) -> Iterator[Visited]:
    """The batches of `trials.edit_batches` at a share of their sizes.

    Neighbours by name are as many as questions to forget, those by picture as many as questions to keep.
    """
    sets = [
        (0, params.forget_batch, params.n_forget_batches),
        (1, params.retain_batch, params.n_retain_batches),
    ]
    for which, size, limit in sets:
        for pictured in (0, 1):
            rows = max(1, int(size * share) // (1 + pictured))
            there = min(work.trained_on(pictured)[which], rows * min(limit, params.edit_steps))
            yield Visited(rows, there, pictured, answered=which == 1)
    if params.neighbour_batch:
        limit = min(params.n_retain_batches, params.edit_steps)
        for pictured in (0, 1):
            rows = max(1, int(params.neighbour_batch * share) // (1 + pictured))
            yield Visited(rows, min(work.trained_on(pictured)[pictured], rows * limit), pictured)


def _path_sizes(params: Params, shape: Shape, work: Workload) -> tuple[int, int]:
    """Path neurons a layer: top_k, or for a union at most top_k of each forget question, or the whole layer."""
    sizes = []
    for pictured, (tower, top_k) in enumerate(
        ((shape.text, params.text_top_k), (shape.vision, params.vision_top_k))
    ):
        located = min(params.n_locate_forget, work.trained_on(pictured)[0])
        united = params.aggregate == "union" or params.use_released_paths
        sizes.append(min(top_k * (located if united else 1), tower.neurons))
    return tuple(sizes)


def evaluating_load(params: Params, shape: Shape, work: Workload, batch: int) -> Load:
    """Notebook 05: vanilla, pruned, and each edit, asked everything; every answer as long as it may be."""
    found = passes.evaluating(
        work.questions, work.asked(params.n_eval_retain, params.protocol), batch, params.max_new_tokens
    )
    models = 2 + params.n_edit_seeds + min(params.n_random_edits, params.n_edit_seeds)
    return Load(((Costs(shape, "text", BYTES[params.dtype]), found),), times=models)


#: step -> its load at a batch size, the parameter that holds it
STEPS: dict[str, tuple[Callable[..., Load], str]] = {
    "locating": (locating_load, "batch_size"),
    "editing": (editing_load, "retain_batch"),
    "evaluating": (evaluating_load, "eval_batch_size"),
}


def plan(
    params: Params,
    shape: Shape,
    work: Workload,
    gpus: Sequence[Gpu] = GPUS,
    utilisation: float = UTILISATION,
) -> list[Step]:
    """Every step on every GPU; with given paths there is no locating."""
    given = params.reuse_paths or params.use_released_paths
    names = [name for name in STEPS if not (given and name == "locating")]
    return [_step(name, gpu, params, shape, work, utilisation) for name in names for gpu in gpus]


def locating_peaks(params: Params, shape: Shape, work: Workload) -> dict[str, int]:
    """Bytes at the peak of each of `locating.PAIRS` at the batch size asked, weights included."""
    load = locating_load(params, shape, work, params.batch_size)
    each = zip(PAIRS, zip(load.parts[::2], load.parts[1::2], strict=True), strict=True)  # forget, retain
    weights = shape.weights * BYTES[params.dtype]
    return {pair: weights + Load(parts).activations for pair, parts in each}


def _step(name: str, gpu: Gpu, params: Params, shape: Shape, work: Workload, utilisation: float) -> Step:
    load_at, parameter = STEPS[name]
    weights = shape.weights * BYTES[params.dtype]
    asked = getattr(params, parameter)

    def room(batch: int) -> bool:
        load = load_at(params, shape, work, batch)
        return weights + load.optimiser + load.activations <= USABLE * gpu.memory * GIB

    fits = max((batch for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256) if room(batch)), default=0)
    batch = asked if room(asked) else max(1, min(fits, asked))
    load = load_at(params, shape, work, batch)
    peak_rate = gpu.tflops_float32 if params.dtype == "float32" else gpu.tflops
    seconds = load.seconds(peak_rate * TERA * utilisation, gpu.bandwidth * GB)
    hours = seconds / 3600 if room(batch) else math.nan
    memory = (weights, load.optimiser, load.activations, load.prepared)
    return Step(name, gpu, asked, fits, batch, *memory, *load.counts, hours)


def with_throughput(gpus: Sequence[Gpu], tflops: float | None) -> tuple[Gpu, ...]:
    """The GPUs with another peak throughput, TFLOP/s; as they are if none is given. ValueError if not positive."""
    if tflops is None:
        return tuple(gpus)
    if not tflops > 0:
        raise ValueError(f"--tflops {tflops}: expected a throughput above 0")
    return tuple(replace(gpu, name="given", tflops=tflops, tflops_float32=tflops) for gpu in gpus)
