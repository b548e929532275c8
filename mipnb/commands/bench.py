"""`mipnb bench`: speed and memory as ratios from one run."""

import argparse
from pathlib import Path

__all__ = ["add_parser"]

QUESTIONS = ("cost", "scaling", "gap", "agreement")
PAIRS = ("text", "text_pictured", "vision")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb bench`."""
    bench = commands.add_parser("bench", help="speed and memory, as ratios from one run", allow_abbrev=False)
    subjects = bench.add_subparsers(required=True, metavar="SUBJECT")
    _add_locating(subjects.add_parser("locating", help="searches and estimators", allow_abbrev=False))
    machinery = subjects.add_parser(
        "machinery", help="a listing of 1,000 runs, and a sweep", allow_abbrev=False
    )
    machinery.set_defaults(command=_machinery)
    _add_gpu(subjects.add_parser("gpu", help="the pocket run and a full-size model", allow_abbrev=False))


def _add_locating(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/bench_locating"), help="folder of the tables")
    add("--model", default="data/pocket/vanilla", help="folder of a model that knows the people")
    add("--benchmark", default="data/pocket", help="folder of the benchmark")
    add("--only", choices=QUESTIONS, action="append", help="one question; may be repeated (default: all)")
    pairs = "branch and modality; may be repeated (default: all)"
    add("--pairs", choices=PAIRS, action="append", help=pairs)
    add("--samples", type=int, default=32, help="questions of a timed batch")
    add("--compared", type=int, default=6, help="questions compared with exact and finer scores")
    add("--repeats", type=int, default=5, help="rounds of the timing")
    add("--device", default="cpu", help="cpu, cuda, cuda:N")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="number type of the weights")
    parser.set_defaults(command=_locating)


def _add_gpu(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/bench_gpu"), help="folder of the table")
    models = "pocket, or a model with a file params/MODEL_mllmu.yaml, of random weights; may be repeated"
    add("--model", action="append", default=[], help=models)
    add("--device", default="cuda", help="cuda, cuda:N, cpu")
    parser.set_defaults(command=_gpu)


def _gpu(options: argparse.Namespace) -> int:
    """Measures runs on a GPU."""
    from mipnb import bench_gpu

    return bench_gpu.run(options)


def _locating(options: argparse.Namespace) -> int:
    """Measures locating."""
    from mipnb import bench_locating

    return bench_locating.run(options)


def _machinery(options: argparse.Namespace) -> int:
    """Measures what runs and sweeps cost beside papermill itself."""
    from mipnb import bench_machinery

    bench_machinery.runs()
    bench_machinery.sweep()
    return 0
