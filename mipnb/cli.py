"""The command `mipnb`: what the user typed, checked and passed on; errors without a stack trace."""

import argparse
import sys
from collections.abc import Sequence

from mipnb import __version__, cleaning, listing
from mipnb.commands import bench, data, figures, publishing, run, studies, tuning
from mipnb.sweeps import command as sweeping

__all__ = ["main"]

WRONG, INTERRUPTED = 2, 130  # exit codes: the user's input is wrong; Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, 1 (failure), 2 (wrong input), 130 (Ctrl-C)."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"mipnb: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(
            "\nmipnb: interrupted; `mipnb run` continues with the notebook that was under way",
            file=sys.stderr,
        )
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="mipnb", description="Cross-modal unlearning by neuron-path editing, as a workbook."
    )
    parser.add_argument("--version", action="version", version=f"mipnb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (run, data, studies, tuning, figures, publishing, listing, cleaning, sweeping, bench):
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
