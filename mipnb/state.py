"""What a notebook's results were made from, and so whether they are up to date."""

import ast
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mipnb.artefacts import read_json, sha256, under_root
from mipnb.params import Params
from mipnb.stages import Stage, notebook_parameters, read_notebook

__all__ = ["RECORD", "code_digests", "code_files", "ingredients", "outputs", "reached", "stale_reasons"]

RECORD = "record.json"  # written last: a folder without it holds no finished results
OWN_FILES = {
    RECORD,
    "notebook.ipynb",
    "notebook.failed.ipynb",
    "notebook.running.ipynb",
    "params.json",
    "usage.json",
    "usage.last.json",
    "log.txt",
}
_PACKAGE = Path(__file__).resolve().parent
# params: its values are compared by themselves, a new one must make nothing stale; report, progress: make no results
_NO_INGREDIENT = {"params", "report", "progress"}
_SHOWS_DOCSTRINGS = re.compile(r"__doc__|\bhelp\(|\w\?\s*$", re.MULTILINE)
_LARGE = 64 * 2**20  # bytes; a larger file (a real model's weights) is known by size and time


def ingredients(stage: Stage, params: Params, run: Path, stages: Mapping[str, Stage]) -> dict[str, Any]:
    """Returns everything a notebook's results are made from, as digests.

    Args:
        stage: The notebook.
        params: The run's parameters; only those the notebook takes count, and `run_dir` does not.
        run: The run's folder.
        stages: All stages by name.

    Returns:
        `parameters` (name -> value), `notebook` (digest of the code cells' sources), `code` (module -> digest),
        `inputs` (file -> digest) of data folders and of earlier notebooks' artefacts.
    """
    taken = {name: getattr(params, name) for name in notebook_parameters(stage.notebook) if name != "run_dir"}
    inputs: dict[str, str] = {}
    for name, value in taken.items():
        extra = Params.model_fields[name].json_schema_extra or {}
        if extra.get("input") and value:
            for place in _places(value):
                inside = under_root(place) / extra.get("inside", "")
                inputs |= _digests(inside if inside.exists() else under_root(place), place)
    for earlier in stage.reads:
        inputs |= {f"{earlier}/{name}": digest for name, digest in outputs(stages[earlier], run).items()}
    made = {"notebook": _source_digest(stage.notebook), "code": code_digests(stage.notebook)}
    return {"parameters": taken, **made, "inputs": inputs}


def _places(value: str) -> list[str]:
    """Returns the paths that a parameter names: one, or for a `{ratio}` in it every folder that there is."""
    if "{ratio}" not in value:
        return [value]
    pattern = under_root(value.replace("{ratio}", "*"))
    found = sorted(place.name for place in pattern.parent.glob(pattern.name))
    return [(Path(value).parent / name).as_posix() for name in found]


def outputs(stage: Stage, run: Path) -> dict[str, str]:
    """Returns the digests of a notebook's artefacts: those the table names, or all if it names none."""
    folder = run / stage.name
    if not stage.writes:
        return {name: value for name, value in _digests(folder, "").items() if name not in OWN_FILES}
    found: dict[str, str] = {}
    for name in stage.writes:
        found |= _digests(folder / name, name)
    return found


def stale_reasons(stage: Stage, params: Params, run: Path, stages: Mapping[str, Stage]) -> list[str]:
    """Returns why a notebook has to run, in a few words each; empty if its results are up to date."""
    path = run / stage.name / RECORD
    if not path.exists():
        return ["failed last time" if (path.parent / "notebook.failed.ipynb").exists() else "not run yet"]
    record, now = read_json(path), ingredients(stage, params, run, stages)
    now = json.loads(json.dumps(now)) | {"outputs": outputs(stage, run)}
    missing = [f"{name} is missing" for name in stage.writes if not (run / stage.name / name).exists()]
    return missing + [
        _reason(part, record.get(part), now[part]) for part in now if record.get(part) != now[part]
    ]


def _reason(part: str, before: Any, now: Any) -> str:
    """Returns what changed in one part of the record: `code changed: editing.py`."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{part} changed"
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return f"{part} changed: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _source_digest(notebook: Path) -> str:
    """Returns a digest of a notebook's code cells: sources and tags, not outputs and counts, nor prose between them."""
    cells = [
        (cell.metadata.get("tags", []), cell.source)
        for cell in read_notebook(notebook).cells
        if cell.cell_type == "code"
    ]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _digests(path: Path, label: str) -> dict[str, str]:
    """Returns file -> digest for a file or all files below a folder (hidden ones apart); empty if none."""
    if path.is_file():
        return {label: _digest(path)}
    files = sorted(found for found in path.rglob("*") if found.is_file())
    names = {file: file.relative_to(path) for file in files}
    return {
        (Path(label) / name).as_posix(): _digest(file)
        for file, name in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }


def _digest(path: Path) -> str:
    """Returns a file's SHA-256, or its size and time if it is large."""
    status = path.stat()
    return sha256(path) if status.st_size <= _LARGE else f"{status.st_size} bytes, {status.st_mtime_ns}"


def code_digests(notebook: Path, package: Path = _PACKAGE) -> dict[str, str]:
    """Returns module -> digest of what a notebook imports, and what that imports: code without comments and layout.

    Docstrings do not count either, but for a notebook that shows them.
    """
    cells = [cell.source for cell in read_notebook(notebook).cells if cell.cell_type == "code"]
    whole = any(_SHOWS_DOCSTRINGS.search(cell) for cell in cells)
    return {
        path.relative_to(package).as_posix(): _code_digest(path, path.stat().st_mtime_ns, whole)
        for path in code_files(notebook, package)
    }


@functools.lru_cache(maxsize=1024)
def _code_digest(file: Path, changed: int, docstrings: bool) -> str:
    """Returns a digest of a module's syntax tree, with or without its docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and not docstrings and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def code_files(notebook: Path, package: Path = _PACKAGE) -> list[Path]:
    """Returns the package's modules that a notebook imports, and those that they import, as sorted files.

    Imports are read from the source; nothing is imported. A cell that cannot be parsed counts as importing
    everything.
    """
    cells = [cell.source for cell in read_notebook(notebook).cells if cell.cell_type == "code"]
    try:
        waiting = [
            file for cell in cells for file in _imports(ast.parse(_plain_python(cell)), package, package)
        ]
    except SyntaxError:
        return sorted(package.rglob("*.py"))
    return reached(waiting, package)


def reached(files: Sequence[Path], package: Path = _PACKAGE) -> list[Path]:
    """Returns modules of the package and those that they import, and so on, as sorted files."""
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in found and file.relative_to(package).with_suffix("").as_posix() not in _NO_INGREDIENT:
            found.add(file)
            waiting.extend(_module_imports(file, file.stat().st_mtime_ns, package))
    return sorted(found)


def _plain_python(cell: str) -> str:
    """Returns a cell's source with IPython's magic and shell lines blanked."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in cell.splitlines())


@functools.lru_cache(maxsize=512)
def _module_imports(file: Path, changed: int, package: Path) -> tuple[Path, ...]:
    """Returns the package's files that one of its modules imports."""
    return tuple(_imports(ast.parse(file.read_text(encoding="utf-8")), file.parent, package))


def _imports(tree: ast.AST, folder: Path, package: Path) -> Iterator[Path]:
    """Yields the package's files that a syntax tree imports; `folder` is where relative imports start."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(package, alias.name.split("."), package)
        elif isinstance(node, ast.ImportFrom):
            start = (
                package.parent
                if node.level == 0
                else folder.parents[node.level - 2]
                if node.level > 1
                else folder
            )
            module = node.module.split(".") if node.module else []
            parts = [*start.relative_to(package.parent).parts, *module]
            for alias in node.names:
                yield from _files(package, [*parts, alias.name], package)


def _files(package: Path, parts: Sequence[str], root: Path) -> Iterator[Path]:
    """Yields the files behind a dotted name: the module, and the `__init__` of each subpackage above it."""
    if not parts or parts[0] != package.name:
        return
    folder = root
    for depth, part in enumerate(parts[1:], start=1):
        if (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
            return
        if not (folder / part / "__init__.py").is_file():
            break
        folder = folder / part
        yield folder / "__init__.py"
        if depth == len(parts) - 1:
            return
    if folder == root:  # a name of the package itself: `from mipnb import __version__`
        yield root / "__init__.py"
