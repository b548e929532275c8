"""What a notebook says at its end: versions, settings, time, peak memory (kept in `usage.json`)."""

import importlib.metadata
import math
import platform
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mipnb import __version__
from mipnb.artefacts import atomic_path, clear_partial, write_json

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BEGAN", "HELPER_PEAKS", "finish", "peak_bytes", "peak_memory_gb", "replace_block", "versions"]

#: peak resident memory of helper processes (`mipnb.lanes`), bytes by process number
HELPER_PEAKS: dict[int, int] = {}
#: when the notebook's first cell began, seconds since 1970, in a kernel that was started ahead (`mipnb.ahead`); else empty
BEGAN: list[float] = []

USAGE = "usage.json"
LAST_USAGE = "usage.last.json"  # the same of the run before, while a notebook is run again
_PACKAGES = ("torch", "transformers", "safetensors", "numpy", "pandas", "matplotlib")


def finish(folder: str | Path, **settings: Any) -> "pd.DataFrame":
    """Writes `usage.json` into a notebook's folder and returns the table that its last cell shows.

    The notebook is through then: partial results that it kept for the case of being stopped are removed.

    Args:
        folder: The notebook's folder within the run (`stage_dir`).
        **settings: What else to show, e.g. `seed=params.seed, device=params.device, dtype=params.dtype`.

    Returns:
        A table with one column, `value`: versions, settings, seconds since the kernel started (since its first cell, if it
            was started ahead), peak memory.
    """
    import pandas as pd

    began = BEGAN[0] if BEGAN else psutil.Process().create_time()
    usage = {
        "seconds": round(time.time() - began, 1),
        "peak_memory_gb": peak_memory_gb(),
    }
    if (gpu := _peak_gpu_memory_gb()) is not None:
        usage["peak_gpu_memory_gb"] = gpu
    write_json(Path(folder) / USAGE, usage)
    clear_partial(folder)
    rows = versions() | settings | usage
    return pd.DataFrame({"value": {name: str(value) for name, value in rows.items()}})


def replace_block(path: str | Path, name: str, text: str) -> None:
    """Replaces what stands in a Markdown file between `<!-- NAME: begin ... -->` and `<!-- NAME: end -->`.

    Args:
        path: The file, e.g. README.md.
        name: The block, e.g. `numbers`.
        text: What it is to hold, Markdown.

    Raises:
        ValueError: If the file does not have the two markers, once each and in this order.
    """
    path = Path(path)
    before = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {re.escape(name)}: begin[^\n]*-->\n)(.*?)(<!-- {re.escape(name)}: end -->)"
    after, found = re.subn(
        pattern, lambda match: f"{match[1]}{text.strip()}\n{match[3]}", before, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(
            f"{path} has {found} blocks `<!-- {name}: begin -->` to `<!-- {name}: end -->`, expected one"
        )
    with atomic_path(path) as temporary:
        temporary.write_text(after, encoding="utf-8")


def versions() -> dict[str, str]:
    """Returns the versions of Python, mipnb and the packages that its numbers depend on."""
    found = {"python": platform.python_version(), "mipnb": __version__}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def peak_memory_gb() -> float:
    """Returns the largest resident memory this process has had, and its helpers, in GB (2^30 bytes), to two decimals.

    Peaks are added up, though they need not come at the same time; files that all of them have mapped (libraries) count once.
    """
    return round((peak_bytes() + sum(HELPER_PEAKS.values())) / 2**30, 2)


def peak_bytes(alone: bool = True) -> int:
    """Returns this process's peak resident memory in bytes, as the operating system counts it.

    Args:
        alone: False leaves out what it has mapped of files at this moment, where the system tells (Linux).
    """
    memory = psutil.Process().memory_info()
    mapped = 0 if alone else getattr(memory, "shared", 0)
    status = Path("/proc/self/status")
    if status.exists():  # Linux: not ru_maxrss, which a child process inherits from a larger parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 - mapped
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes


def _peak_gpu_memory_gb() -> float | None:
    """Returns the peak memory torch has allocated on the current GPU, in GB, or None if no GPU was used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return math.ceil(torch.cuda.max_memory_allocated() / 2**30 * 100) / 100
