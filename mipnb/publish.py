"""`mipnb publish`: a whole run at default parameters becomes what the repository shows.

The notebooks get its outputs, `figures/` its figures, README its numbers, data/results what it read and made (`kept_run`);
sources of cells are never touched.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Container, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mipnb.artefacts import atomic_path, project_root, read_json, under_root, write_json
from mipnb.kept_run import check_kept, keep
from mipnb.params import Params
from mipnb.readme_blocks import START, readme_blocks
from mipnb.report import replace_block
from mipnb.stages import Stage, find_stage, load_stages, read_notebook
from mipnb.state import RECORD, stale_reasons

__all__ = ["publish"]

INJECTED = "injected-parameters"
WIDGET = "application/vnd.jupyter.widget-view+json"


def publish(run_dir: str, only: Sequence[str] = ()) -> list[Path]:
    """Copies a run's outputs, figures and numbers into the repository.

    Args:
        run_dir: the run's folder, from the project's root.
        only: notebooks, by number or name; by default all that the run has. Others' outputs, figures and results stay.

    Returns:
        The files written.

    Raises:
        ValueError: the run is not whole, up to date and at default parameters, its notebooks do not match the
            sources, an output names a folder of this machine, or what is kept of others would no longer fit
            (`kept_run.check_kept`); nothing is written then.
        FileNotFoundError: a file that the run should have is missing.
    """
    root, run = project_root(), under_root(run_dir)
    every = load_stages(root / "notebooks")
    stages = check_run(every, run_dir, run, {find_stage(every, name).name for name in only})
    filled = {
        stage.notebook: fill(
            read_notebook(stage.notebook), read_notebook(run / stage.name / "notebook.ipynb")
        )
        for stage in stages
    }
    if not only and (start := root / "notebooks" / f"{START}.ipynb").exists():
        filled[start] = fill(read_notebook(start), _executed(start, root))
    for path, notebook in filled.items():
        check_outputs(path, notebook, root)
    check_kept(every, stages, run)
    blocks = readme_blocks(run, root, {stage.name for stage in stages})
    for path, notebook in filled.items():
        with atomic_path(path) as temporary:
            nbformat.write(notebook, temporary)
    figures = copy_figures([run / stage.name / "figures" for stage in stages], root / "figures")
    for name, text in blocks.items():
        replace_block(root / "README.md", name, text)
    return [*filled, *figures, keep(stages, run), root / "README.md"]


def check_run(stages: Sequence[Stage], run_dir: str, run: Path, only: Container[str] = ()) -> list[Stage]:
    """The stages to publish: those named, or all that the run has, which must be every one that is not optional.

    Raises:
        ValueError: one of them is not up to date at default parameters.
    """
    by_name, params = {stage.name: stage for stage in stages}, Params(run_dir=run_dir)
    has = {stage.name for stage in stages if not stage.optional or (run / stage.name / RECORD).exists()}
    stages = [stage for stage in stages if stage.name in (only or has)]
    problems = [
        f"{stage.name}: {'; '.join(reasons)}"
        for stage in stages
        if (reasons := stale_reasons(stage, params, run, by_name))
    ]
    if problems:
        raise ValueError(
            f"{run} cannot be published; expected all (or those of --only) up to date at default parameters, found\n"
            + "\n".join(problems)
        )
    return stages


def fill(source: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The source notebook with the outputs of an executed copy, counted 1 to n; prose may have changed since.

    Metadata other than tags, standard error and times of execution are left out, and so is papermill's own cell.

    Raises:
        ValueError: the executed copy has other code cells, a cell that was not executed, or one that failed.
    """
    filled = nbformat.from_dict(source)
    cells, done = (
        [c for c in notebook.cells if c.cell_type == "code" and INJECTED not in c.metadata.get("tags", ())]
        for notebook in (filled, executed)
    )
    if [cell.source for cell in cells] != [cell.source for cell in done]:
        raise ValueError("the executed notebook's code cells are not those of its source: run it again")
    for cell in filled.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode({"tags": list(tags)} if tags else {})
    for count, (cell, ran) in enumerate(zip(cells, done, strict=True), start=1):
        cell.execution_count, cell.outputs = count, _outputs(ran, count)
    names = ("kernelspec", "language_info")
    filled.metadata = NotebookNode({name: source.metadata[name] for name in names if name in source.metadata})
    return filled


def _outputs(cell: NotebookNode, count: int) -> list[NotebookNode]:
    """A cell's outputs, standard error left out, with the count given."""
    if cell.execution_count is None or any(output.output_type == "error" for output in cell.outputs):
        raise ValueError(f"a cell was not executed, or failed: {cell.source.splitlines()[:1]}")
    kept = [nbformat.from_dict(output) for output in cell.outputs if output.get("name") != "stderr"]
    for output in kept:
        if "execution_count" in output:
            output.execution_count = count
        output.get("data", {}).pop(
            WIDGET, None
        )  # without its state it is an error on a page; its sentence stays
    return kept


def check_outputs(path: Path, notebook: NotebookNode, root: Path) -> None:
    """Raises ValueError if an output names the project's or the user's folder."""
    private = {str(root), str(root.resolve()), str(Path.home())} - {"/"}
    for cell in notebook.cells:
        text = str(cell.get("outputs", ""))
        if found := [folder for folder in private if folder in text]:
            raise ValueError(
                f"{path.name}: the output of `{cell.source.splitlines()[0]}` names {found[0]}; show paths "
                "relative to the project"
            )


def _executed(notebook: Path, root: Path) -> NotebookNode:
    """A notebook outside the run, executed in a folder that is thrown away."""
    from mipnb.execute import execute

    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, {}, Path(folder), root)
        return read_notebook(Path(folder) / "notebook.ipynb")


def copy_figures(folders: Sequence[Path], target: Path) -> list[Path]:
    """Copies every figure with its data, and unites the folders' manifests.

    Figures in the target that the manifests do not name stay as they are.
    """
    manifest = target / "manifest.json"
    entries, copied = (read_json(manifest) if manifest.exists() else {}), []
    for folder in folders:
        if not (folder / "manifest.json").exists():
            continue
        found = read_json(folder / "manifest.json")
        for name in [file for entry in found.values() for file in entry["files"]]:
            with atomic_path(target / name) as temporary:
                shutil.copyfile(folder / name, temporary)
            copied.append(target / name)
        entries |= found
    return [*copied, write_json(manifest, dict(sorted(entries.items())))]
