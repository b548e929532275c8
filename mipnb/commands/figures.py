"""`mipnb figures`: every table and figure of the paper, by one command."""

import argparse
import sys
from pathlib import Path

from mipnb.artefacts import under_root
from mipnb.commands.given import add_parameters, parameters
from mipnb.outcome import table
from mipnb.plan import make_plan
from mipnb.run import run_plan
from mipnb.stages import Stage

__all__ = ["add_parser", "of_the_paper"]

#: numbers of the notebooks that make the paper's tables and figures
_FIRST, _LAST = "06", "12"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb figures`."""
    parser = commands.add_parser(
        "figures",
        help="run what is needed for the paper's tables and figures, and copy them",
        allow_abbrev=False,
    )
    add_parameters(parser)
    parser.add_argument("--name", metavar="RUN", help="name of the run: its folder is runs/RUN")
    parser.add_argument("--out", metavar="DIR", default="figures", help="where they go (figures)")
    parser.set_defaults(command=_figures)


def of_the_paper(stage: Stage) -> bool:
    """Returns whether a notebook makes a table or figure of the paper beyond the main five."""
    return stage.optional and _FIRST <= stage.name[:2] <= _LAST


def _figures(options: argparse.Namespace) -> int:
    """Runs what is not up to date, and copies figures and tables of all notebooks."""
    from mipnb.artefacts import project_root
    from mipnb.publish import copy_figures
    from mipnb.stages import load_stages

    params = parameters(options)
    stages = [stage for stage in load_stages(project_root() / "notebooks") if of_the_paper(stage)]
    plan = make_plan(params, extra=[stage.name for stage in stages])
    outcomes = run_plan(plan)
    print(table(outcomes))
    if failed := [outcome for outcome in outcomes if outcome.state == "failed"]:
        print(f"mipnb: {failed[0].error}", file=sys.stderr)
        return 1
    copied = copy_figures([plan.run / name / "figures" for name in plan.selected], under_root(options.out))
    print(f"{len({Path(file).stem for file in copied}) - 1} tables and figures in {options.out}/")
    return 0
