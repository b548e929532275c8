"""What a notebook says before it works: what it will do, how long that took last time, what it skips or goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from IPython.display import Markdown

from mipnb.artefacts import PARTIAL, read_json
from mipnb.progress import clock
from mipnb.report import LAST_USAGE, USAGE

__all__ = ["begin"]


def begin(folder: str | Path, does: str, skips: Mapping[str, bool] | None = None) -> Markdown:
    """Three lines at the top of a notebook; its cell is tagged `nbval-ignore-output`, since times differ.

    Args:
        folder: the notebook's folder within the run (`stage_dir`).
        does: what it will do, e.g. "locate 96 + 96 questions a modality, in both branches".
        skips: part of the notebook -> whether the parameters leave it out, e.g. {"training anew (retrain)": True}.
    """
    left_out = [name for name, skipped in (skips or {}).items() if skipped]
    lines = [f"**Will** {does}.", f"**Last time** {_last(Path(folder))}."]
    lines.append(f"**Skipped:** {'; '.join(left_out) or 'nothing'}.")
    if pieces := n_kept(folder):
        lines.append(f"**Goes on** from {pieces} finished pieces that an earlier run left.")
    return Markdown("  \n".join(lines))


def _last(folder: Path) -> str:
    """How long the notebook took when it was last through, here."""
    file = next((folder / name for name in (USAGE, LAST_USAGE) if (folder / name).is_file()), None)
    if file is None:
        return "is not known: it was not through in this run's folder yet"
    usage = read_json(file)
    return f"it took {clock(usage['seconds'])} and {usage['peak_memory_gb']} GB of memory"


def n_kept(folder: str | Path) -> int:
    """How many partial results of an earlier run are in a notebook's folder (`mipnb.partial`)."""
    return sum(file.is_file() for file in (Path(folder) / PARTIAL).rglob("*"))
