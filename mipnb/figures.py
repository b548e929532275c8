"""Figures on disk: PDF, SVG, PNG, the same bytes from run to run; the numbers drawn; where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from mipnb.artefacts import atomic_path, project_root, read_json, sha256, write_json

MANIFEST = "manifest.json"
#: per format what to leave out, so that no file holds a date or a version
_UNDATED = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
_SOURCE = {"notebook", "parameters", "results", "caption"}


def save_figure(
    fig: Figure, name: str, data: pd.DataFrame, folder: str | Path, source: Mapping[str, Any]
) -> dict[str, Path]:
    """Save a figure as PDF, SVG and PNG, its data as CSV, and its entry in the folder's manifest.json.

    Args:
        fig: the figure; it is not closed.
        name: the figure's id, e.g. "fig05_forget_retain"; the files' stem.
        data: exactly what is drawn, one row a mark.
        folder: e.g. figures/; made if need be.
        source: notebook (a name), parameters (plain values), results (the files used), and caption, which a notebook shows.

    Returns:
        Suffix -> file. The same figure saved again gives the same bytes. Paths in the manifest are relative
        to the project, and each file of results stands with its checksum.

    Raises:
        ValueError: `source` lacks an entry or has an unknown one, or the data are empty.
    """
    if set(source) != _SOURCE:
        raise ValueError(f"source of figure {name} has {sorted(source)}, expected {sorted(_SOURCE)}")
    if data.empty:
        raise ValueError(f"figure {name} has no data to save")
    folder = Path(folder)
    files = {suffix: folder / f"{name}.{suffix}" for suffix in (*_UNDATED, "csv")}
    for suffix, undated in _UNDATED.items():
        with (
            atomic_path(files[suffix]) as temporary,
            mpl.rc_context({"svg.hashsalt": "mipnb", "pdf.fonttype": 42}),
        ):
            fig.savefig(temporary, format=suffix, metadata=undated, dpi=200)
    with atomic_path(files["csv"]) as temporary:
        data.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")
    _note(folder / MANIFEST, name, source, files)
    _show(source["caption"])
    return files


def save_table(
    data: pd.DataFrame, text: str, name: str, folder: str | Path, source: Mapping[str, Any]
) -> dict[str, Path]:
    """Save a table as CSV, every digit that counts, and as Markdown, as it is shown; with its entry in manifest.json.

    Args:
        data: its numbers.
        text: Markdown.
        name, folder, source: see `save_figure`.
    """
    if set(source) != _SOURCE:
        raise ValueError(f"source of table {name} has {sorted(source)}, expected {sorted(_SOURCE)}")
    files = {suffix: Path(folder) / f"{name}.{suffix}" for suffix in ("csv", "md")}
    with atomic_path(files["csv"]) as temporary:
        data.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")
    with atomic_path(files["md"]) as temporary:
        temporary.write_text(f"{text.strip()}\n\n{source['caption']}\n", encoding="utf-8")
    _note(Path(folder) / MANIFEST, name, source, files)
    _show(source["caption"])
    return files


def _show(caption: str) -> None:
    """The caption on a notebook's page; nothing elsewhere."""
    if get_ipython() is not None:
        display(Markdown(f"*{caption}*"))


def _note(manifest: Path, name: str, source: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    entries = read_json(manifest) if manifest.exists() else {}
    entries[name] = {
        "notebook": source["notebook"],
        "caption": source["caption"],
        "parameters": dict(source["parameters"]),
        "results": {_relative(path): sha256(path) for path in source["results"]},
        "files": sorted(path.name for path in files.values()),
    }
    write_json(manifest, dict(sorted(entries.items())))


def _relative(path: str | Path) -> str:
    path = Path(path).resolve()
    root = project_root().resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
