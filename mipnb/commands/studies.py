"""`mipnb validate`, `mipnb estimate` and `mipnb paths convert`: what informs a run or feeds it."""

import argparse
from pathlib import Path

from mipnb.commands.given import add_parameters, parameters
from mipnb.param_files import parameter_file

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds all three."""
    _add_validate(
        commands.add_parser("validate", help="try settings on validation people", allow_abbrev=False)
    )
    _add_estimate(
        commands.add_parser("estimate", help="memory, passes and hours of a run on a GPU", allow_abbrev=False)
    )
    paths = commands.add_parser(
        "paths", help="score tensors that the paper's authors released", allow_abbrev=False
    )
    _add_convert(paths.add_subparsers(required=True, metavar="COMMAND"))


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb estimate`."""
    add_parameters(parser)
    add = parser.add_argument
    add("--tflops", type=float, metavar="N", help="peak throughput of the GPU, TFLOP/s (default: as printed)")
    add("--utilisation", type=float, metavar="SHARE", default=0.3, help="share of it in use (default: 0.3)")
    add("--write", action="store_true", help="write the estimate into the header of each --params file")
    add("--measure", action="store_true", help="compare with what a few questions take here, on the CPU")
    parser.set_defaults(command=_estimate, name=None)


def _add_convert(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb paths convert`."""
    parser = commands.add_parser(
        "convert",
        help="a released score tensor (.pt) as our file (.safetensors), or our scores as one",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="scores: .pt or .safetensors")
    parser.add_argument("target", metavar="TARGET", type=Path, help="the file to write, of the other kind")
    parser.add_argument(
        "--path", action="store_true", help="write the forget set's path, for reuse_paths, in place of scores"
    )
    add_parameters(parser)
    parser.set_defaults(command=_convert, name=None)


def _add_validate(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb validate`."""
    add_parameters(parser)
    parser.add_argument(
        "--trials", metavar="N", type=int, nargs="+", default=[1, 2, 3], help="seeds of the people (1 2 3)"
    )
    parser.add_argument("--people", metavar="N", type=int, default=10, help="people to forget (10)")
    parser.set_defaults(command=_validate, name=None)


def _estimate(options: argparse.Namespace) -> int:
    """Estimates a run, writes estimates into parameter files, or compares one with measurements."""
    from mipnb import estimates

    if options.write:
        print("\n".join(f"wrote {estimates.write_header(parameter_file(name))}" for name in options.params))
        return 0
    params = parameters(options)
    if options.measure:
        print(estimates.measured_text(params))
        return 0
    print(estimates.estimate_text(params, options.tflops, options.utilisation))
    return 0


def _convert(options: argparse.Namespace) -> int:
    """Converts between released score tensors and our files."""
    from mipnb.reuse import convert

    print(convert(options.source, options.target, parameters(options), as_path=options.path))
    return 0


def _validate(options: argparse.Namespace) -> int:
    """Tries the settings on validation people and prints what came of it."""
    import pandas as pd

    from mipnb.validation import summary, validate

    params = parameters(options)
    found = pd.concat(
        [validate(params, trial, options.people) for trial in options.trials], ignore_index=True
    )
    print(summary(found).to_string(float_format="{:.3f}".format))
    return 0
