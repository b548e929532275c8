"""Executing one notebook by papermill, in this very Python, so that it is kept whole or kept as failed."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from mipnb import ahead
from mipnb.outcome import NotebookFailedError

__all__ = ["execute"]

#: what jupyter_client says of a kernel that ended before it was asked anything
_NEVER_BEGAN = "Kernel died before replying to kernel_info"
_STARTS = (
    3  # tries: several kernels that start at the same moment may choose the same port, and all but one end
)
#: one cell in so many: the next notebook's kernel waits beside a notebook's last ones, not beside what takes most memory
_LAST_CELLS = 4
_MESSAGE_LINES = 6  # of an error's text; the whole of it stays in the kept notebook


def execute(
    notebook: Path,
    parameters: Mapping[str, Any],
    folder: Path,
    working_dir: Path,
    following: Path | None = None,
) -> float:
    """Executes a notebook into `folder/notebook.ipynb`.

    While it runs it is `notebook.running.ipynb`; if it fails it stays as `notebook.failed.ipynb`. What it
    prints goes to `log.txt`.

    Args:
        notebook: The notebook's file.
        parameters: Values for its `parameters` cell.
        folder: Where to write.
        working_dir: The kernel's working directory.
        following: The notebook that will be executed next, if its kernel is to be started beside the last cells.

    Returns:
        The seconds it took, start of the kernel included.

    Raises:
        NotebookFailedError: If a cell raised an error or the kernel died; one that dies before it is asked anything is started
            again first.
    """
    running, started = folder / "notebook.running.ipynb", time.monotonic()
    for left in reversed(range(_STARTS)):
        kernel = ahead.take(notebook) or ahead.new(working_dir)
        begun = _starting(following, notebook, working_dir)
        try:
            _papermill(notebook, running, parameters, folder / "log.txt", kernel, begun)
            break
        except (PapermillExecutionError, DeadKernelError, CellTimeoutError, RuntimeError) as error:
            if left and _NEVER_BEGAN in str(error):
                continue
            kept = _keep(running, folder / "notebook.failed.ipynb")
            raise NotebookFailedError(_explain(error, notebook, kept, folder / "log.txt")) from None
        finally:
            ahead.end(kernel)
    seconds = time.monotonic() - started
    (folder / "notebook.failed.ipynb").unlink(missing_ok=True)
    os.replace(running, folder / "notebook.ipynb")
    return seconds


def _starting(following: Path | None, notebook: Path, working_dir: Path) -> Callable[..., None] | None:
    """Returns what starts the following notebook's kernel as soon as one of a notebook's last cells begins."""
    if following is None:
        return None
    cells = len(json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    first = cells - cells // _LAST_CELLS

    def begun(cell: Mapping[str, Any], cell_index: int) -> None:
        if cell_index >= first:
            ahead.start(following, working_dir)

    return begun


def _papermill(
    notebook: Path,
    output: Path,
    parameters: Mapping[str, Any],
    log: Path,
    kernel: ahead.Kernel,
    begun: Callable[..., None] | None,
) -> None:
    """Calls papermill quietly, with the notebook's standard output and error in a log file; tells of cells that begin."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with open(log, "w", encoding="utf-8") as stream:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=dict(parameters),
            kernel_name="python3",
            language="python",
            km=kernel,
            on_cell_start=begun,
            progress_bar=False,
            stdout_file=stream,
            stderr_file=stream,
        )


def _keep(running: Path, kept: Path) -> Path | None:
    """Renames a failed notebook; None if it never got as far as being written."""
    if not running.exists():
        return None
    os.replace(running, kept)
    return kept


def _explain(error: Exception, notebook: Path, kept: Path | None, log: Path) -> str:
    """Returns a failure in a few lines: the notebook, the cell, the error, what was kept."""
    lines = [f"notebook {notebook}"]
    if isinstance(error, PapermillExecutionError):
        source = next((line for line in error.source.splitlines() if line.strip()), "")
        lines += [f"stopped in cell In [{error.exec_count}], which begins `{source}`"]
        lines += f"{error.ename}: {error.evalue}".splitlines()[:_MESSAGE_LINES]
    elif isinstance(error, DeadKernelError):
        lines += ["stopped because its kernel died; the usual reason is too little memory"]
    else:
        lines += [f"could not be executed: {type(error).__name__}: {error}"]
    if kept:
        lines += [f"as far as it came: {kept}"]
    return "\n".join([*lines, f"its output: {log}"])
