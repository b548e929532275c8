"""`mipnb sweep`: the command."""

from __future__ import annotations

import argparse
import sys

from mipnb.sweeps.call import Found, run_sweep
from mipnb.sweeps.plan import Sweep, read_sweep
from mipnb.sweeps.worker import finished, is_complete

__all__ = ["add_parser", "command"]

_FAILED = 1


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `mipnb sweep`."""
    parser = commands.add_parser("sweep", help="many runs from one file of settings", allow_abbrev=False)
    add = parser.add_argument
    add("file", metavar="FILE", help="the sweep, e.g. params/sweep.yaml")
    add(
        "--slurm",
        action="store_true",
        help="as jobs of a Slurm cluster, in place of processes of this machine",
    )
    add("--no-wait", action="store_true", help="with --slurm: return once the jobs are submitted")
    add("--list", action="store_true", help="show the runs and their state; run nothing")
    add("--collect", action="store_true", help="make table and plots of what there is; run nothing")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Runs, lists or collects a sweep; the exit code is 1 if a run failed or was lost."""
    sweep = read_sweep(options.file)
    if options.no_wait and not options.slurm:
        raise ValueError("--no-wait goes with --slurm: processes of this machine end with the command")
    if options.list:
        print("\n".join(_line(sweep, run) for run in sweep.runs))
        return 0
    if options.collect:
        collect(sweep)
        return 0
    found = run_sweep(sweep, options.slurm, not options.no_wait)
    if options.no_wait:
        print(f"submitted; `mipnb sweep {options.file} --list` says how far they are")
        return 0
    collect(sweep)
    return _report(sweep, found)


def _line(sweep: Sweep, run) -> str:
    """One line of the list: name, state, what is varied."""
    state = finished(sweep.folder / run.name).get("state", "not run")
    if state == "complete" and not is_complete(sweep, run):
        state = "not up to date"
    return f"{run.name}  {state:<14}  {run.label()}"


def collect(sweep: Sweep) -> None:
    """Writes the sweep's table and plots, and prints scores and the best settings."""
    from mipnb.sweeps.collect import best, scores_table, write_tables
    from mipnb.sweeps.plots import save_plots

    written, scores, rule = write_tables(sweep), scores_table(sweep), sweep.file.best
    source = {"notebook": "mipnb sweep", "parameters": sweep.file.model_dump(), "results": written}
    figures = save_plots(scores, sweep.folder / "figures", source)
    if scores.empty:
        print("no run is complete yet: there is nothing to compare")
        return
    print(scores.to_string(index=False, float_format="{:.3f}".format))
    print("\n".join(["", *(f"wrote {path}" for path in written)]))
    if figures:
        print(f"wrote {sweep.folder / 'figures'}: {', '.join(figures)}")
    if rule is None:
        print("no best settings: the file states no rule (`best`)")
        return
    print(f"best, {rule.text()}:")
    print(best(scores, rule).to_string(float_format="{:.3f}".format))


def _report(sweep: Sweep, found: Found) -> int:
    """Says what became of the runs: counts on standard output, each failure on standard error."""
    counts = f"{len(found.failed)} failed, {len(found.lost)} without result"
    print(f"{len(found.complete)} of {len(sweep.runs)} runs complete, {counts}")
    for name, error in (found.failed | found.lost).items():
        run = next(run for run in sweep.runs if run.name == name)
        print(f"mipnb: run {name} ({run.label()}): {error}", file=sys.stderr)
    return _FAILED if found.failed or found.lost else 0
