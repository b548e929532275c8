"""What became of the notebooks of a run, and the table that says so."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mipnb.artefacts import read_json
from mipnb.report import USAGE
from mipnb.state import RECORD

__all__ = ["NotebookFailedError", "Outcome", "table"]


class NotebookFailedError(Exception):
    """A notebook stopped with an error; the text says where, why, and what was kept."""


@dataclass
class Outcome:
    """One notebook's fate.

    Attributes:
        name: The notebook.
        state: `waiting`, `up to date`, `ran`, `failed`, or `to run` in a list.
        reasons: Why it has to run.
        seconds: Time it took, now or when it last ran.
        peak_memory_gb: Its kernel's peak memory, likewise.
        error: What went wrong, if it failed.
    """

    name: str
    state: str = "waiting"
    reasons: list[str] = field(default_factory=list)
    seconds: float | None = None
    peak_memory_gb: float | None = None
    error: str = ""

    def settle(self, state: str, run: Path) -> None:
        """Notes how the notebook ended."""
        self.state, self.seconds, self.peak_memory_gb = state, None, None
        self.add_costs(run)

    def add_costs(self, run: Path) -> None:
        """Fills in time and memory of the notebook's last whole run, as far as they are known."""
        folder = run / self.name
        if (folder / RECORD).exists():
            self.seconds = read_json(folder / RECORD)["seconds"]
        if (folder / USAGE).exists():
            self.peak_memory_gb = read_json(folder / USAGE)["peak_memory_gb"]


def table(outcomes: Sequence[Outcome], with_reasons: bool = False, peak_gb: float | None = None) -> str:
    """Returns notebook, state, seconds, peak memory as lines of text; times in brackets are an earlier run's.

    Args:
        outcomes: The notebooks, in order.
        with_reasons: Say why each has to run, in place of a closing line of totals.
        peak_gb: The most memory that the run has taken, all its processes together, for the line of totals.
    """
    rows = [("notebook", "state", "seconds", "peak GB", "")] + [_row(one, with_reasons) for one in outcomes]
    if not with_reasons:
        ran = [one for one in outcomes if one.state == "ran"]
        peak = _number(peak_gb if ran else None, 2)
        rows.append(("this run", "", f"{sum(one.seconds or 0 for one in ran):.1f}", peak, ""))
    name, state = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        f"{row[0]:<{name}}  {row[1]:<{state}}  {row[2]:>9}  {row[3]:>7}  {row[4]}".rstrip() for row in rows
    )


def _row(outcome: Outcome, with_reasons: bool) -> tuple[str, str, str, str, str]:
    """Returns one line of the table as texts."""
    seconds = _number(outcome.seconds, 1)
    if outcome.seconds is not None and outcome.state != "ran":
        seconds = f"({seconds})"
    reasons = "; ".join(outcome.reasons) if with_reasons else ""
    return outcome.name, outcome.state, seconds, _number(outcome.peak_memory_gb, 2), reasons


def _number(value: float | None, digits: int) -> str:
    """Returns a number as text, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"
