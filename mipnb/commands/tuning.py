"""`mipnb tune` and `mipnb retrained`: what the comparison of methods stands on."""

import argparse
from functools import partial

from mipnb.commands.given import add_parameters, parameters

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds both."""
    tune = commands.add_parser(
        "tune", help="try every method's grid on validation people, record the choices", allow_abbrev=False
    )
    add_parameters(tune)
    add = tune.add_argument
    add("--methods", metavar="NAME", nargs="+", help="baselines, and edited for ours (default: all)")
    add("--trial", metavar="N", type=int, default=1, help="seed of the people (1)")
    add("--people", metavar="N", type=int, default=10, help="people to forget (10)")
    add("--out", metavar="DIR", default="data/results", help="where tuning.csv and tuning.json go")
    add("--work", metavar="DIR", default="runs/tuning", help="keeps what is finished, so that it goes on")
    tune.set_defaults(command=_tune, name=None)
    anew = commands.add_parser(
        "retrained", help="train the models that never saw the forget set", allow_abbrev=False
    )
    add_parameters(anew)
    anew.add_argument("ratios", metavar="RATIO", type=int, nargs="+", help="forget ratios, percent")
    anew.set_defaults(command=_retrained, name=None)


def _tune(options: argparse.Namespace) -> int:
    """Tries the grids and writes what came of them."""
    from mipnb.artefacts import under_root
    from mipnb.results import tuning
    from mipnb.results.unlearners import check_methods

    params = parameters(options)
    named = options.methods or [*params.methods, tuning.OURS]
    check_methods([name for name in named if name != tuning.OURS])
    folder = under_root(options.work)
    load = partial(tuning.load_trial, params, options.trial, folder, n_forget=options.people)
    trial = load()
    table = tuning.tuning_table(tuning.try_all(trial, named, load))
    print(table[["method", "settings", "forget", "retain", "bystander", "chosen"]].round(3).to_string())
    for path in tuning.write_tuning(table, trial, options.out):
        print(f"wrote {path}")
    return 0


def _retrained(options: argparse.Namespace) -> int:
    """Trains a model on each retain set, into `retrained_dir`."""
    from mipnb.artefacts import under_root
    from mipnb.remake import make_retrained

    params = parameters(options)
    for ratio in options.ratios:
        print(f"wrote {make_retrained(params, ratio, under_root(params.retrained_dir.format(ratio=ratio)))}")
    return 0
