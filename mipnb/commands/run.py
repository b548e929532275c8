"""`mipnb run`: runs or lists notebooks."""

import argparse
import os
import sys

from mipnb.artefacts import KEEP_PARTIAL
from mipnb.commands.given import add_parameters, parameters
from mipnb.footprint import Footprint
from mipnb.outcome import table
from mipnb.params import Params
from mipnb.plan import Plan, list_stages, make_plan
from mipnb.run import run_plan
from mipnb.state import stale_reasons

__all__ = ["add_parser", "command", "with_hub_data"]

_FAILED = 1


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb run`."""
    parser = commands.add_parser("run", help="run the notebooks that are not up to date", allow_abbrev=False)
    add_parameters(parser)
    add = parser.add_argument
    add(
        "--from",
        dest="start",
        metavar="NB",
        help="run this notebook (04 or 04_editing) and all that build on it again",
    )
    add("--only", metavar="NB", help="run this notebook alone, on what earlier ones left")
    add(
        "--with",
        dest="extra",
        metavar="NB",
        action="append",
        default=[],
        help="run this optional notebook, too (14, or all); may be repeated",
    )
    add("--list", action="store_true", help="show each notebook's state and why it would run; run nothing")
    add("--name", metavar="RUN", help="name of the run: its folder is runs/RUN")
    add("--report", action="store_true", help="write report.html, one file of the whole run")
    add("--force", action="store_true", help="run even what is up to date")
    add(
        "--keep-partial",
        action="store_true",
        help="keep scores, trained edits and answers by what made them: a notebook run again then takes them",
    )
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Runs or lists notebooks."""
    params = with_hub_data(parameters(options))
    plan = make_plan(params, start=options.start, only=options.only, force=options.force, extra=options.extra)
    if options.list:
        print(table(list_stages(plan), with_reasons=True))
        return 0
    _note(plan, options)
    if options.keep_partial:
        os.environ[KEEP_PARTIAL] = "1"  # the notebooks' kernels inherit it
    with Footprint() as memory:
        outcomes = run_plan(plan)
    print(table(outcomes, peak_gb=memory.peak_gb))
    if options.report:
        from mipnb.html_report import write_report

        print(f"wrote {write_report(plan)}")
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        print(f"mipnb: {outcome.error}", file=sys.stderr)
    return _FAILED if failed else 0


def with_hub_data(params: Params) -> Params:
    """Returns the parameters with data sets of the hub replaced by their folders, fetched if need be."""
    found = {}
    for name, revision in (
        ("benchmark_dir", params.benchmark_revision),
        ("training_dir", params.training_revision),
    ):
        if revision:
            from mipnb.benchmarks import benchmark_folder

            found[name] = str(benchmark_folder(getattr(params, name), revision))
    return params.model_copy(update=found)


def _note(plan: Plan, options: argparse.Namespace) -> None:
    """Says on standard error what the user may have meant otherwise, but need not have."""
    idle = sorted({name for name, _ in options.given} - plan.taken)
    if idle:
        print(f"mipnb: note: {', '.join(plan.selected)} do not take {', '.join(idle)}", file=sys.stderr)
    reads = [read for name in plan.selected for read in plan.stages[name].reads if read not in plan.selected]
    for read in reads:
        if stale_reasons(plan.stages[read], plan.params, plan.run, plan.stages):
            print(f"mipnb: note: {read} is not up to date; what it left is used as it is", file=sys.stderr)
