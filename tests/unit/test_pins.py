"""One statement of every version and name: what is stated elsewhere agrees with it."""

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import mipnb

ROOT = Path(mipnb.__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
DOCS = {"sphinx", "myst-nb", "furo", "sphinx-mathjax-offline"}  # named in docs/conf.py
USED_WITHOUT_IMPORT = {"jupyterlab", "ipywidgets", "ruff", "pre-commit", "nbval", "pytest-xdist", *DOCS}


def pins(lines: list[str]) -> dict[str, str]:
    """Name -> version of `name==version` lines."""
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def lock_lines() -> list[str]:
    return [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")
    ]


def direct() -> dict[str, str]:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    return pins([*PROJECT["dependencies"], *extras])


def lock_tool():
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_requirements_are_exact():
    lines = [*PROJECT["dependencies"], *(x for xs in PROJECT["optional-dependencies"].values() for x in xs)]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9.]*", line) for line in lines)


def test_what_builds_is_what_is_locked():
    assert PYPROJECT["build-system"]["requires"] == [f"setuptools=={pins(lock_lines())['setuptools']}"]


def test_the_lock_works_on_any_machine():
    lines = lock_lines()
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), (
            f"{line!r}: no hosts, paths or local versions"
        )


def test_the_lock_installs_on_the_oldest_python_that_is_promised():
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for name in pins(lock_lines()):
        wanted = importlib.metadata.metadata(name).get("Requires-Python") or ""
        assert SpecifierSet(wanted).contains(oldest), f"{name} needs Python {wanted}, {oldest} is promised"


def test_the_lock_holds_every_direct_requirement_as_stated():
    locked = pins(lock_lines())
    assert {name: locked.get(name) for name in direct()} == direct()


def test_the_lock_is_what_the_tool_writes():
    tool = lock_tool()
    needed = tool.closure(tool.direct_requirements(ROOT))
    locked = pins(lock_lines())
    assert {name: locked.get(name) for name in needed} == needed
    if sys.platform == "linux" and sys.version_info[:2] == (3, 11):
        assert locked == needed, "the lock holds what nothing needs"


def test_the_tool_refuses_another_version(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy==1.0"]\noptional-dependencies = {}\n'
    )
    tool = lock_tool()
    with pytest.raises(ValueError, match=r"numpy==1\.0 is required"):
        tool.closure(tool.direct_requirements(tmp_path))


def test_what_is_installed_is_what_is_locked():
    for name, version in direct().items():
        assert Version(importlib.metadata.version(name)).public == version, name


def test_environment_installs_the_lock_and_the_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(line for line in environment["dependencies"] if str(line).startswith("python="))
    assert python == "python=3.11"
    assert PROJECT["requires-python"] == ">=3.11"
    assert {"pip": ["-r requirements.lock", "-e ."]} in environment["dependencies"]


def test_the_makefile_states_no_version_of_its_own():
    text = (ROOT / "Makefile").read_text()
    assert "grep '^torch==' requirements.lock" in text
    assert not re.search(r"==\s*\d", text)


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M).group(1)
    assert "version" in PROJECT["dynamic"]
    assert citation["version"] == heading == mipnb.__version__ == importlib.metadata.version("mipnb")


def sources() -> Iterator[tuple[Path, str]]:
    for folder in ("mipnb", "tests", "tools"):
        yield from ((path, path.read_text()) for path in (ROOT / folder).rglob("*.py"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        yield (
            path,
            "\n".join(
                line for cell in cells for line in cell.splitlines() if not line.startswith(("%", "!"))
            ),
        )


def imported() -> dict[str, Path]:
    """Every top-level module imported anywhere in the project, with a file that imports it."""
    found = {}
    for path, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found[node.module.split(".")[0]] = path
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                found[node.args[0].value.split(".")[0]] = path
    return found


def distributions() -> dict[str, set[str]]:
    """Imported module -> distributions, for third-party modules."""
    own = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"mipnb", "tests"}
    known = importlib.metadata.packages_distributions()
    names = {name for name in imported() if name not in sys.stdlib_module_names and name not in own}
    return {name: {canonicalize_name(one) for one in known.get(name, [name])} for name in names}


def test_everything_imported_is_required():
    allowed = direct().keys() | {"packaging"}  # packaging: pytest's own, for tools and tests
    files = imported()
    missing = {name: str(files[name]) for name, dists in distributions().items() if not dists & allowed}
    assert not missing, f"imported but not in pyproject.toml: {missing}"


def test_everything_required_is_used():
    used = {one for dists in distributions().values() for one in dists} | USED_WITHOUT_IMPORT
    assert not direct().keys() - used
