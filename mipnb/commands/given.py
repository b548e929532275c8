"""A run's parameters from the command line: parameter files, `-p name value`, `--name`."""

import argparse
from pathlib import Path

from mipnb.param_files import parameter_file, parse_value, read_parameters
from mipnb.params import Params

__all__ = ["add_parameters", "parameters", "run_name"]


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Adds the options by which a command takes a run's parameters."""
    add = parser.add_argument
    add(
        "--params",
        metavar="FILE",
        action="append",
        default=[],
        help="parameter file; may be repeated, later ones win",
    )
    add(
        "-p",
        dest="given",
        metavar=("NAME", "VALUE"),
        nargs=2,
        action="append",
        default=[],
        help="one parameter; wins over files",
    )


def run_name(name: str) -> str:
    """Returns a run's name, or raises ValueError if it is no plain folder name."""
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"--name {name!r}: expected a plain folder name; for another place use -p run_dir")
    return name


def parameters(options: argparse.Namespace) -> Params:
    """Returns the run's parameters from files, `-p` and `--name`."""
    given = {name: parse_value(value) for name, value in options.given}
    if options.name is not None:
        given["run_dir"] = f"runs/{run_name(options.name)}"
    return read_parameters([parameter_file(name) for name in options.params], given)
