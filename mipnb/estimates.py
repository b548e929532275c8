"""A run's estimate as text: on the screen, and in the header of the parameter file that it is of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mipnb.artefacts import atomic_path, project_root
from mipnb.param_files import read_parameters
from mipnb.params import Params
from mipnb.planner import GB, GPUS, USABLE, UTILISATION, Gpu, Step, plan, read_plan, with_throughput

BEGIN = "# estimate: begin (written by mipnb estimate --write)"
END = "# estimate: end"
OURS = "ours"  # the profile that a file's header holds beside its own settings
_HEADINGS = (
    "step", "GPU", "batch", "fits", "weights", "optimiser", "activations", "peak", "waiting", "forward", "backward", "hours",
)  # fmt: skip


def estimate_text(params: Params, tflops: float | None = None, utilisation: float = UTILISATION) -> str:
    """What a run takes on GPUs of 24, 40 and 80 GiB, and what was assumed for it.

    Args:
        params: of the run.
        tflops: peak throughput in place of the GPUs' own.
        utilisation: share of it in use.

    Raises:
        ValueError: an unknown model or benchmark, or a throughput that is not above 0 (a share: at most 1).
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"--utilisation {utilisation}: expected a share above 0 and at most 1")
    gpus = with_throughput(GPUS, tflops)
    return "\n".join([*_estimate(params, gpus, utilisation), *_notes(params, gpus, utilisation)])


def _estimate(params: Params, gpus: Sequence[Gpu], utilisation: float) -> list[str]:
    """Model, benchmark, and a table of steps."""
    shape, work = read_plan(params)
    steps = plan(params, shape, work, gpus, utilisation)
    text, pictured = work.questions
    return [
        f"{shape.name}: {shape.weights / 1e9:.2f} billion weights in {params.dtype}; neurons {_neurons(shape)}",
        f"{work.name}: {work.people[0]} people to forget, {work.people[1]} to keep; a text question has {text.positions} "
        f"positions, one with a picture {pictured.positions} ({pictured.patches} patches, {work.side} px)",
        *step_table(steps),
        "hours together: " + ", ".join(f"{hours} ({memory} GB)" for memory, hours in _together(steps)),
    ]


def _notes(params: Params, gpus: Sequence[Gpu], utilisation: float) -> list[str]:
    """What the numbers are of, and the throughput they assume."""
    rates = ", ".join(f"{_tflops(gpu, params):g} TFLOP/s ({gpu.memory} GB {gpu.name})" for gpu in gpus)
    return [
        f"Memory in GB (10^9 bytes) at the batch planned with; fits: the largest power of two in {USABLE:.0%} of the GPU; "
        f"waiting: batches in CPU memory.",
        f"Hours, without notebooks' diagnostics, at {utilisation:.0%} of {rates}.",
    ]


def _neurons(shape) -> str:
    towers = {"text": shape.text, "vision": shape.vision}
    return ", ".join(f"{tower.layers} x {tower.neurons} ({name})" for name, tower in towers.items())


def _tflops(gpu, params: Params) -> float:
    return gpu.tflops_float32 if params.dtype == "float32" else gpu.tflops


def measured_text(params: Params) -> str:
    """Planned against measured on this machine's CPU: passes, peak memory, and seconds at one rate for all steps.

    Raises:
        FileNotFoundError: the model or the benchmark of the parameters is not on this machine.
    """
    from mipnb.comparing import compare, rate

    found = compare(params)
    flops = rate(found)
    rows = [("step", "passes planned", "counted", "MB planned", "measured", "s planned", "measured")]
    for one in found:
        memory = (f"{size / 1e6:.1f}" for size in (one.planned_bytes, one.peak_bytes))
        seconds = (f"{one.flops / flops:.2f}", f"{one.seconds:.2f}")
        rows.append((one.name, _counts(one.planned), _counts(one.counted), *memory, *seconds))
    lines = _aligned(rows)
    told = f"Seconds planned at {flops / 1e9:.0f} GFLOP/s, the rate of all these steps together; memory without weights."
    return "\n".join([*lines, told])


def _counts(passes: tuple[int, int]) -> str:
    return f"{passes[0]} + {passes[1]}"


def _together(steps: Sequence[Step]) -> list[tuple[int, str]]:
    """Hours of all steps by GPU memory."""
    hours: dict[int, float] = {}
    for step in steps:
        hours[step.gpu.memory] = hours.get(step.gpu.memory, 0.0) + step.hours
    return [(memory, _hours(total, 1)) for memory, total in hours.items()]


def _hours(hours: float, digits: int) -> str:
    return "does not fit" if math.isnan(hours) else f"{hours:.{digits}f}"


def step_table(steps: Iterable[Step]) -> list[str]:
    """One line a step and GPU, under headings."""
    return _aligned([_HEADINGS, *(_row(step) for step in steps)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines, columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _row(step: Step) -> tuple[str, ...]:
    sizes = (step.weights, step.optimiser, step.activations, step.peak, step.waiting)
    memory = (f"{size / GB:.1f}" for size in sizes)
    fits = "256+" if step.fits == 256 else str(step.fits)
    counts = (f"{step.forward}", f"{step.backward}", _hours(step.hours, 2))
    return (step.name, f"{step.gpu.memory} GB", f"{step.batch} of {step.asked}", fits, *memory, *counts)


def header(file: str | Path) -> str:
    """The header of a parameter file: the estimate of its settings, and of the profile `ours` laid over them."""
    ours = project_root() / "params" / f"{OURS}.yaml"
    profiles = {"as it stands": [file], f"with --params {OURS} after it": [file, ours]}
    lines = []
    for told, files in profiles.items():
        params = read_parameters(files)
        lines += [f"{told}:", *_estimate(params, GPUS, UTILISATION), ""]
    return "\n".join(
        [BEGIN, *(f"# {line}".rstrip() for line in [*lines, *_notes(params, GPUS, UTILISATION)]), END]
    )


def write_header(file: str | Path) -> Path:
    """Puts the estimate into a parameter file, in place of the one there, or at its top.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no estimate can be made of it, see `estimate_text`.
    """
    file, block = Path(file), header(file)
    text = file.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    text = pattern.sub(lambda _: block, text) if pattern.search(text) else f"{block}\n{text}"
    with atomic_path(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file
