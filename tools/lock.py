"""Writes requirements.lock: exact versions of all that pyproject.toml's requirements pull in, as installed.

Run it in an environment in which the tests pass: `python tools/lock.py`. Direct requirements come from
pyproject.toml with all extras; the rest is what they need in turn. No hosts, no paths, no local versions.
"""

import importlib.metadata
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
HEADER = "# Written by tools/lock.py from pyproject.toml; `make setup` installs it\n"


def direct_requirements(root: Path = ROOT) -> list[Requirement]:
    """Returns pyproject.toml's requirements, extras included."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in [*project["dependencies"], *extras]]


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Returns canonical name -> public version of everything the requirements need in this environment.

    Raises:
        ValueError: If an installed version is not what is required.
        importlib.metadata.PackageNotFoundError: If something required is not installed.
    """
    found: dict[str, str] = {}
    waiting, seen = list(requirements), set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        version = Version(importlib.metadata.version(wanted.name)).public
        if not wanted.specifier.contains(version, prereleases=True):
            raise ValueError(f"{wanted} is required, but {wanted.name} {version} is installed")
        if key not in seen:
            seen.add(key)
            found[key[0]] = version
            waiting.extend(_needs(wanted))
    return dict(sorted(found.items()))


def _needs(wanted: Requirement) -> Iterator[Requirement]:
    """Yields what an installed package requires in this environment, for the extras asked of it."""
    for line in importlib.metadata.requires(wanted.name) or ():
        needed = Requirement(line)
        if needed.marker is None or any(
            needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
        ):
            yield needed


def lock_text(versions: dict[str, str]) -> str:
    """Returns the lock file's text."""
    return HEADER + "".join(f"{name}=={version}\n" for name, version in versions.items())


if __name__ == "__main__":
    (ROOT / "requirements.lock").write_text(lock_text(closure(direct_requirements())), encoding="utf-8")
