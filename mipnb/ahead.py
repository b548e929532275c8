"""The next notebook's kernel, started while the one before comes to its end: it has imported what it needs when its turn comes.

Imports take some 10 s on two slow cores (torch, transformers, seaborn), as long as the work of a short notebook.
"""

from __future__ import annotations

import ast
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from IPython import get_ipython
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.utils import run_sync

from mipnb.progress import LINES
from mipnb.report import BEGAN

__all__ = ["Kernel", "end", "imports", "new", "prepare", "start", "stop", "take"]

#: what torch keeps of matrix products compiled for the sizes met: of 1024, its default, a third of an edit's memory
_FEW_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
#: how often an idle thread looks for work before it sleeps: at GNU's default, notebooks of two threads each that run at once
#: on two cores take several times as long as one after the other
_SPINS = "GOMP_SPINCOUNT", "2000"


class Kernel(AsyncKernelManager):
    """A kernel in the interpreter that runs mipnb, whatever kernel is installed as python3; its bars are lines.

    It is started by `new` or `start`, and ended by `end` with the client that papermill takes of it.
    """

    taken: AsyncKernelClient | None = None

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel to start, without its own warnings; what the notebook prints is not affected."""
        spec = get_kernel_dict()
        env = LINES | _FEW_KERNELS | {_SPINS[0]: os.environ.get(*_SPINS)}
        return KernelSpec(**spec | {"argv": [*spec["argv"], "--log-level=ERROR"], "env": env})

    def client(self, **options) -> AsyncKernelClient:
        """A client, the last of which `end` closes."""
        self.taken = super().client(**options)
        return self.taken


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A kernel that waits for its notebook.

    Attributes:
        notebook: which.
        kernel: it.
        started: seconds since 1970.
    """

    notebook: Path
    kernel: Kernel
    started: float


_WAITING: list[_Waiting] = []  # one at most


def new(working_dir: Path, *lines: str) -> Kernel:
    """A kernel, started; it runs the lines, before anything it is sent, as if they were not there."""
    kernel = Kernel(kernel_name="python3")
    arguments = [f"--IPKernelApp.exec_lines={line}" for line in lines]
    run_sync(kernel.start_kernel)(extra_arguments=arguments, cwd=str(working_dir))
    return kernel


def end(kernel: Kernel) -> None:
    """Ends a kernel and its client."""
    if kernel.taken:
        kernel.taken.stop_channels()
    run_sync(kernel.shutdown_kernel)(now=True)


def start(notebook: Path, working_dir: Path) -> None:
    """Starts a kernel for a notebook, unless one waits for it already; one that waits for another ends."""
    if _WAITING and _WAITING[0].notebook == notebook:
        return
    stop()
    line = f"__import__('mipnb.ahead').ahead.prepare({str(notebook)!r})"
    started = time.time()
    _WAITING.append(_Waiting(notebook, new(working_dir, line), started))


def take(notebook: Path) -> Kernel | None:
    """The kernel that waits for a notebook; None if there is none, it has died, or what it has imported is out of date."""
    if not _WAITING or _WAITING[0].notebook != notebook or _WAITING[0].started < _changed(notebook):
        stop()
        return None
    waiting = _WAITING.pop()
    if not run_sync(waiting.kernel.is_alive)():
        return end(waiting.kernel)
    return waiting.kernel


def stop() -> None:
    """Ends what is waiting."""
    while _WAITING:
        end(_WAITING.pop().kernel)


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


def prepare(notebook: str) -> None:
    """Within the waiting kernel: imports what the notebook will, into nobody's names; its time counts from its first cell."""
    for statement in imports(Path(notebook)):
        with suppress(Exception):  # the notebook itself will say it
            exec(statement, {})
    get_ipython().events.register("pre_run_cell", lambda info: BEGAN or BEGAN.append(time.time()))
