"""`mipnb build-pocket` and `mipnb check-data`: the files of a benchmark."""

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

from mipnb.artefacts import project_root
from mipnb.params import Params

__all__ = ["add_parser"]

_FAILED = 1


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds both."""
    _add_build(
        commands.add_parser(
            "build-pocket", help="make the pocket benchmark's files again", allow_abbrev=False
        )
    )
    _add_check(
        commands.add_parser("check-data", help="look for faults in a benchmark's folder", allow_abbrev=False)
    )


def _add_build(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `mipnb build-pocket`."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: data/pocket)")
    parser.add_argument("--seed", type=int, default=Params().seed, help="another seed, other people")
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
    return _FAILED if report.errors else 0


def _build_pocket(options: argparse.Namespace) -> int:
    """Writes the pocket benchmark, or compares it with what is there."""
    from mipnb.pocket.build import build

    out = (options.out or project_root() / "data" / "pocket").resolve()
    if not options.check:
        build(out, options.seed)
        print(f"wrote {out}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), options.seed)
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
    return _FAILED if different or missing or not names else 0
