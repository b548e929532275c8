"""The next notebook's kernel, started while the one before is at work: it has imported what it needs when its turn comes.

Imports take some 10 s on two slow cores (torch, transformers, seaborn), as long as the work of a short notebook. Run as
`python -m mipnb.ahead NOTEBOOK` it imports, waits for the kernel's arguments on its standard input, and becomes the kernel.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from mipnb.progress import LINES

__all__ = ["ENVIRONMENT", "STARTED", "imports", "peak_gb", "start", "stop", "take"]

#: of kernels: bars are lines; and what torch keeps of matrix products compiled for the sizes met is a sixteenth of its default
#: (1024), which was a third of an edit's memory
ENVIRONMENT = LINES | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
#: in the environment of a kernel that has waited: when its notebook began, seconds since 1970
STARTED = "MIPNB_STARTED"


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A process that waits to become a notebook's kernel.

    Attributes:
        notebook: which.
        process: it.
        started: seconds since 1970.
        beside: whether another notebook is at work.
    """

    notebook: Path
    process: subprocess.Popen
    started: float
    beside: bool


_WAITING: list[_Waiting] = []  # one at most
_MEMORY = [0]  # what each that was beside another has had in memory for itself at the end of its wait, bytes


def start(notebook: Path, folder: Path, beside: bool = False) -> None:
    """Starts a kernel for a notebook, unless one waits for it already; one that waits for another ends.

    Args:
        notebook: the notebook.
        folder: the kernel's working directory.
        beside: whether another notebook is at work (for `peak_gb`).
    """
    if _WAITING and _WAITING[0].notebook == notebook:
        return
    stop()
    process = subprocess.Popen(
        [sys.executable, "-m", "mipnb.ahead", str(notebook)],
        stdin=subprocess.PIPE,
        env=os.environ | ENVIRONMENT | {"JPY_PARENT_PID": str(os.getpid())},
        cwd=folder,
        start_new_session=True,  # as every kernel: Ctrl-C is this process's to hear
    )
    _WAITING.append(_Waiting(notebook, process, time.time(), beside))


def take(notebook: Path, arguments: Sequence[str]) -> subprocess.Popen | None:
    """The process that waits for a notebook, now its kernel; None if there is none, or what it has imported is out of date.

    Args:
        notebook: the notebook.
        arguments: a kernel's, `-f` and its connection file among them.
    """
    if not _WAITING or _WAITING[0].notebook != notebook or _WAITING[0].started < _changed(notebook):
        stop()
        return None
    waiting = _WAITING.pop()
    process = waiting.process
    try:
        memory = psutil.Process(process.pid).memory_info()
        _MEMORY.append((memory.rss - getattr(memory, "shared", 0)) * waiting.beside)
        with process.stdin:
            process.stdin.write(json.dumps(list(arguments)).encode())
    except (OSError, psutil.Error):  # it has died
        return None
    return process


def peak_gb() -> float:
    """The most memory that a waiting kernel has had for itself, beside the notebook that was at work, GB (2^30 bytes)."""
    return max(_MEMORY) / 2**30


def stop() -> None:
    """Ends what is waiting."""
    while _WAITING:
        process = _WAITING.pop().process
        process.kill()
        process.stdin.close()
        process.wait()


def _changed(notebook: Path) -> float:
    """When the notebook, or anything of this package, was last changed, seconds since 1970."""
    return max(file.stat().st_mtime for file in [notebook, *Path(__file__).parent.rglob("*.py")])


def imports(notebook: Path) -> Iterator[str]:
    """The import statements of a notebook's cells; cells that are not plain Python have none."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with suppress(SyntaxError):
                found = ast.parse("".join(cell["source"])).body
                yield from (ast.unparse(one) for one in found if isinstance(one, ast.Import | ast.ImportFrom))


def _main(notebook: Path) -> None:
    """Import, wait, and be the kernel; ends if nothing is to come any more."""
    from ipykernel import kernelapp

    sys.path.pop(0)  # the working directory: the kernel puts it there itself
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as the kernel will
    for statement in imports(notebook):
        with suppress(Exception):  # the notebook itself will say it
            exec(statement, {})
    logging.raiseExceptions = (
        False  # a kernel's last words come after its streams are closed; nobody need hear of that
    )
    if arguments := sys.stdin.read():
        os.environ[STARTED] = str(time.time())
        sys.argv[1:] = json.loads(arguments)
        kernelapp.launch_new_instance()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
