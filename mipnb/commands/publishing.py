"""`mipnb publish`: a run's outputs, figures and numbers into the repository."""

import argparse

from mipnb.artefacts import project_root
from mipnb.commands.given import run_name

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb publish`."""
    parser = commands.add_parser(
        "publish",
        help="put a whole run's outputs, figures and numbers into the repository",
        allow_abbrev=False,
    )
    parser.add_argument("--name", metavar="RUN", default="pocket", help="name of the run (default: pocket)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--second", metavar="RUN", help="instead: what came of a run on another pocket benchmark, for README"
    )
    part.add_argument(
        "--only",
        metavar="NB",
        action="append",
        default=[],
        help="this notebook (13 or 13_searches) alone; may be repeated",
    )
    parser.set_defaults(command=_publish)


def _publish(options: argparse.Namespace) -> int:
    """Publishes a run."""
    from mipnb.publish import publish
    from mipnb.second_pocket import publish_second

    if options.second:
        written = publish_second(f"runs/{run_name(options.second)}")
    else:
        written = publish(f"runs/{run_name(options.name)}", options.only)
    print("\n".join(path.relative_to(project_root()).as_posix() for path in written))
    return 0
