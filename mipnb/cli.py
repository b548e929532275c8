"""The command `mipnb`: what the user typed, checked and passed on; errors without a stack trace."""

import argparse
import filecmp
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mipnb import __version__
from mipnb.artefacts import project_root
from mipnb.outcome import table
from mipnb.param_files import parse_value, read_parameters
from mipnb.params import Params
from mipnb.run import Plan, list_stages, make_plan, run_plan
from mipnb.state import stale_reasons

__all__ = ["main"]

FAILED, WRONG, INTERRUPTED = (
    1,
    2,
    130,
)  # exit codes: a notebook or check failed; the user's input is wrong; Ctrl-C


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
    _add_run(commands.add_parser("run", help="run the notebooks that are not up to date", allow_abbrev=False))
    _add_build(
        commands.add_parser(
            "build-pocket", help="make the pocket benchmark's files again", allow_abbrev=False
        )
    )
    _add_validate(
        commands.add_parser("validate", help="try settings on validation people", allow_abbrev=False)
    )
    publish = commands.add_parser(
        "publish",
        help="put a whole run's outputs, figures and numbers into the repository",
        allow_abbrev=False,
    )
    publish.add_argument("--name", metavar="RUN", default="pocket", help="name of the run (default: pocket)")
    publish.set_defaults(command=_publish)
    _add_estimate(
        commands.add_parser("estimate", help="memory, passes and hours of a run on a GPU", allow_abbrev=False)
    )
    paths = commands.add_parser(
        "paths", help="score tensors that the paper's authors released", allow_abbrev=False
    )
    _add_convert(paths.add_subparsers(required=True, metavar="COMMAND"))
    _add_check(
        commands.add_parser("check-data", help="look for faults in a benchmark's folder", allow_abbrev=False)
    )
    return parser


def _add_parameters(parser: argparse.ArgumentParser) -> None:
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


def _add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb run`."""
    _add_parameters(parser)
    add = parser.add_argument
    add(
        "--from",
        dest="start",
        metavar="NB",
        help="run this notebook (04 or 04_editing) and all that build on it again",
    )
    add("--only", metavar="NB", help="run this notebook alone, on what earlier ones left")
    add("--list", action="store_true", help="show each notebook's state and why it would run; run nothing")
    add("--name", metavar="RUN", help="name of the run: its folder is runs/RUN")
    add("--force", action="store_true", help="run even what is up to date")
    parser.set_defaults(command=_run)


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb estimate`."""
    _add_parameters(parser)
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
    _add_parameters(parser)
    parser.set_defaults(command=_convert, name=None)


def _add_validate(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb validate`."""
    _add_parameters(parser)
    parser.add_argument(
        "--trials", metavar="N", type=int, nargs="+", default=[1, 2, 3], help="seeds of the people (1 2 3)"
    )
    parser.set_defaults(command=_validate, name=None)


def _add_build(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb build-pocket`."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: data/pocket)")
    parser.add_argument(
        "--check", action="store_true", help="only compare what would be written with the files in DIR"
    )
    parser.set_defaults(command=_build_pocket)


def _add_check(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb check-data`."""
    parser.add_argument(
        "folder", metavar="FOLDER", help="the benchmark, or a data set of the hub as owner/name"
    )
    parser.add_argument("--revision", default="", metavar="COMMIT", help="commit of a data set of the hub")
    parser.set_defaults(command=_check_data)


def _check_data(options: argparse.Namespace) -> int:
    """Reports a benchmark folder's faults."""
    from mipnb.benchmarks import benchmark_folder
    from mipnb.benchmarks.validation import check_data

    report = check_data(benchmark_folder(options.folder, options.revision))
    print(report.text())
    return FAILED if report.errors else 0


def _run(options: argparse.Namespace) -> int:
    """Runs or lists notebooks."""
    params = _with_hub_data(_parameters(options))
    plan = make_plan(params, start=options.start, only=options.only, force=options.force)
    if options.list:
        print(table(list_stages(plan), with_reasons=True))
        return 0
    _note(plan, options)
    outcomes = run_plan(plan)
    print(table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        print(f"mipnb: {outcome.error}", file=sys.stderr)
    return FAILED if failed else 0


def _estimate(options: argparse.Namespace) -> int:
    """Estimates a run, writes estimates into parameter files, or compares one with measurements."""
    from mipnb import estimates

    if options.write:
        print("\n".join(f"wrote {estimates.write_header(_parameter_file(name))}" for name in options.params))
        return 0
    params = _parameters(options)
    if options.measure:
        print(estimates.measured_text(params))
        return 0
    print(estimates.estimate_text(params, options.tflops, options.utilisation))
    return 0


def _convert(options: argparse.Namespace) -> int:
    """Converts between released score tensors and our files."""
    from mipnb.reuse import convert

    print(convert(options.source, options.target, _parameters(options), as_path=options.path))
    return 0


def _publish(options: argparse.Namespace) -> int:
    """Publishes a run."""
    from mipnb.publish import publish

    written = publish(f"runs/{_run_name(options.name)}")
    print("\n".join(path.relative_to(project_root()).as_posix() for path in written))
    return 0


def _validate(options: argparse.Namespace) -> int:
    """Tries the settings on validation people and prints what came of it."""
    import pandas as pd

    from mipnb.validation import summary, validate

    params = _parameters(options)
    found = pd.concat([validate(params, trial) for trial in options.trials], ignore_index=True)
    print(summary(found).to_string(float_format="{:.3f}".format))
    return 0


def _run_name(name: str) -> str:
    """Returns a run's name, or raises ValueError if it is no plain folder name."""
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"--name {name!r}: expected a plain folder name; for another place use -p run_dir")
    return name


def _parameters(options: argparse.Namespace) -> Params:
    """Returns the run's parameters from files, `-p` and `--name`."""
    given = {name: parse_value(value) for name, value in options.given}
    if options.name is not None:
        given["run_dir"] = f"runs/{_run_name(options.name)}"
    return read_parameters([_parameter_file(name) for name in options.params], given)


def _with_hub_data(params: Params) -> Params:
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


def _parameter_file(name: str) -> Path:
    """Returns a parameter file as given, or the one of that name in the project's `params/`."""
    shipped = project_root() / "params" / f"{Path(name).name.removesuffix('.yaml')}.yaml"
    return shipped if not Path(name).is_file() and shipped.is_file() else Path(name)


def _note(plan: Plan, options: argparse.Namespace) -> None:
    """Says on standard error what the user may have meant otherwise, but need not have."""
    idle = sorted({name for name, _ in options.given} - plan.taken)
    if idle:
        print(f"mipnb: note: {', '.join(plan.selected)} do not take {', '.join(idle)}", file=sys.stderr)
    reads = [read for name in plan.selected for read in plan.stages[name].reads if read not in plan.selected]
    for read in reads:
        if stale_reasons(plan.stages[read], plan.params, plan.run, plan.stages):
            print(f"mipnb: note: {read} is not up to date; what it left is used as it is", file=sys.stderr)


def _build_pocket(options: argparse.Namespace) -> int:
    """Writes the pocket benchmark, or compares it with what is there."""
    from mipnb.pocket.build import build

    out = (options.out or project_root() / "data" / "pocket").resolve()
    seed = Params().seed
    if not options.check:
        build(out, seed)
        print(f"wrote {out}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), seed)
        names = sorted(
            path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()
        )
        _, different, missing = filecmp.cmpfiles(folder, out, names, shallow=False)
    for name in [*different, *missing]:
        print(
            f"{out / name}: {'differs from' if name in different else 'is missing beside'} what is built",
            file=sys.stderr,
        )
    print(f"{len(names) - len(different) - len(missing)} of {len(names)} files are the same in {out}")
    return FAILED if different or missing or not names else 0


if __name__ == "__main__":
    sys.exit(main())
