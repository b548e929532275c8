"""The notebooks of a run: what each reads and writes (`notebooks/stages.yaml`) and what parameters."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

if TYPE_CHECKING:
    import nbformat

__all__ = [
    "Stage", "descendants", "find_stage", "load_stages", "no_longer_read", "notebook_parameters", "read_notebook",
    "replaced_reads", "with_those_read",
]  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One notebook of a run.

    Attributes:
        name: The notebook's name without suffix, e.g. `04_editing`; also its folder's name within a run.
        notebook: The notebook's file.
        reads: Earlier stages whose artefacts it reads.
        writes: Artefacts (files or folders) it must leave in its folder. Later stages depend on these alone;
            empty means that they depend on all it leaves.
        instead: An earlier stage -> parameters of which any, when set, takes the place of what it reads there.
        optional: Whether a run leaves it out unless it is asked for.
    """

    name: str
    notebook: Path
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: bool = False


def load_stages(notebooks: str | Path) -> tuple[Stage, ...]:
    """Reads `stages.yaml` of a folder of notebooks, in running order.

    Raises:
        FileNotFoundError: If the table or a notebook it lists is missing.
        ValueError: If an entry is malformed or reads a stage that does not come before it.
    """
    table = Path(notebooks) / "stages.yaml"
    if not table.is_file():
        raise FileNotFoundError(f"{table} is missing: it lists the notebooks that a run consists of")
    stages: list[Stage] = []
    for name, entry in (yaml.safe_load(table.read_text(encoding="utf-8")) or {}).items():
        stages.append(_stage(table, str(name), entry or {}, [stage.name for stage in stages]))
    return tuple(stages)


def _stage(table: Path, name: str, entry: Mapping[str, Any], earlier: Sequence[str]) -> Stage:
    """Checks one line of the table."""
    notebook = table.parent / f"{name}.ipynb"
    if not isinstance(entry, dict) or not set(entry) <= {"reads", "writes", "instead", "optional"}:
        raise ValueError(f"{table}: {name} has {entry!r}, expected `reads: [...]` and `writes: [...]`")
    if not notebook.is_file():
        raise FileNotFoundError(f"{table} lists {name}, but {notebook} is missing")
    if late := [read for read in entry.get("reads", ()) if read not in earlier]:
        raise ValueError(f"{table}: {name} reads {', '.join(late)}, which does not come before it")
    instead = {read: tuple(names) for read, names in entry.get("instead", {}).items()}
    if unread := set(instead) - set(entry.get("reads", ())):
        raise ValueError(f"{table}: {name} has instead of {', '.join(unread)}, which it does not read")
    optional = bool(entry.get("optional", False))
    return Stage(
        name, notebook, tuple(entry.get("reads", ())), tuple(entry.get("writes", ())), instead, optional
    )


def replaced_reads(stages: Sequence[Stage], params: BaseModel) -> tuple[Stage, ...]:
    """Returns the stages without those reads that set parameters take the place of."""
    return tuple(
        replace(stage, reads=tuple(read for read in stage.reads if not _replaced(stage, read, params)))
        for stage in stages
    )


def _replaced(stage: Stage, read: str, params: BaseModel) -> bool:
    """Tells whether a set parameter takes the place of what a stage reads from another."""
    return any(getattr(params, name) for name in stage.instead.get(read, ()))


def no_longer_read(before: Sequence[Stage], after: Sequence[Stage]) -> set[str]:
    """Returns the stages that some stage read before and that none, or only others of these, reads after."""
    once_read = {read for stage in before for read in stage.reads}
    idle: set[str] = set()
    for stage in reversed(after):  # readers come before what they read
        readers = {other.name for other in after if stage.name in other.reads}
        if stage.name in once_read and readers <= idle:
            idle.add(stage.name)
    return idle


def find_stage(stages: Sequence[Stage], wanted: str) -> Stage:
    """Returns the stage meant by `04`, `4`, `04_editing`, `04_editing.ipynb` or a path to it.

    Raises:
        ValueError: If there is none, listing those there are.
    """
    name = Path(wanted).name.removesuffix(".ipynb")
    number = name.zfill(2) if name.isdigit() else None
    for stage in stages:
        if stage.name == name or stage.name.split("_")[0] == number:
            return stage
    raise ValueError(
        f"no notebook {wanted!r} in a run; there are {', '.join(stage.name for stage in stages)}"
    )


def with_those_read(stages: Sequence[Stage], name: str) -> set[str]:
    """Returns `name` and every stage that it reads, directly or through others."""
    found = {name}
    for stage in reversed(stages):  # readers come before what they read
        if stage.name in found:
            found.update(stage.reads)
    return found


def descendants(stages: Sequence[Stage], name: str) -> set[str]:
    """Returns `name` and every stage that reads it, directly or through others."""
    found = {name}
    for stage in stages:  # in running order, so one pass is enough
        if found.intersection(stage.reads):
            found.add(stage.name)
    return found


def read_notebook(path: Path) -> "nbformat.NotebookNode":
    """Reads a notebook.

    Raises:
        ValueError: If the file is not a notebook.
    """
    import nbformat  # takes most of a second, which lists of runs can do without

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises half a dozen kinds for a damaged file
        raise ValueError(f"{path} cannot be read as a notebook ({type(error).__name__}: {error})") from None


def notebook_parameters(path: Path) -> dict[str, Any]:
    """Returns names and default values of a notebook's cell tagged `parameters`; empty if it has none.

    Raises:
        ValueError: If the cell holds anything but `name: type = plain value` lines.
    """
    for cell in read_notebook(path).cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", ()):
            return dict(_assignment(path, line) for line in ast.parse(cell.source).body)
    return {}


def _assignment(path: Path, line: ast.stmt) -> tuple[str, Any]:
    """Returns name and value of one line of a `parameters` cell."""
    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
        try:
            return line.target.id, ast.literal_eval(line.value)
        except ValueError:
            pass
    raise ValueError(
        f"{path}: its parameters cell has the line `{ast.unparse(line)}`; "
        "expected only `name: type = plain value` lines"
    )
