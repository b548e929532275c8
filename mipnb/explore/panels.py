"""The widgets: each is one cell that also works by itself, after a restart of the kernel.

Without a front end they show nothing; the figures and tables above them in the notebooks carry the same message.
"""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets

from mipnb.explore.ask_panel import AskPanel
from mipnb.explore.dial_panel import DialPanel
from mipnb.explore.opened import open_run
from mipnb.explore.path_panel import PathExplorer
from mipnb.explore.runs_panel import RunsPanel
from mipnb.explore.work import opened_or_slip

__all__ = ["ask_panel", "compare_panel", "dial_panel", "path_explorer"]


def path_explorer(run_dir: str | Path | None = None, max_new_tokens: int = 20) -> widgets.Widget:
    """A question's path to click through: a neuron's activations, whom it serves, the answer without it.

    Args:
        run_dir: a run's folder; None: see `open_run`, so that the cell works by itself.
        max_new_tokens: an answer ends there.

    Returns:
        The widget, or a line that says why the run cannot be opened.
    """
    return opened_or_slip(lambda: PathExplorer(open_run(run_dir), max_new_tokens))


def ask_panel(run_dir: str | Path | None = None, max_new_tokens: int = 20) -> widgets.Widget:
    """A question, with a person's or one's own picture, to the vanilla model and to edits; see `path_explorer`."""
    return opened_or_slip(lambda: AskPanel(open_run(run_dir), max_new_tokens))


def dial_panel(run_dir: str | Path | None = None, max_new_tokens: int = 20) -> widgets.Widget:
    """An edit's strength from 0 to 1 against the scores of both sets; see `path_explorer`."""
    return opened_or_slip(lambda: DialPanel(open_run(run_dir), max_new_tokens))


def compare_panel() -> widgets.Widget:
    """Runs of runs/ side by side."""
    return opened_or_slip(RunsPanel)
