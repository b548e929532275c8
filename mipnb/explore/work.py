"""What a widget computes: in a thread, with progress and cancel, the latest wish first, a slip told in one line."""

from __future__ import annotations

import threading
from collections.abc import Callable

import ipywidgets as widgets

from mipnb.explore.drawing import line
from mipnb.plotting import set_theme
from mipnb.progress import quiet

#: told how many of how many pieces are done; raises `Cancelled` when the work is no longer wanted
Step = Callable[[int, int], None]
Task = Callable[[Step], str | None]
#: `Work.start` or `Work.now`
Run = Callable[[Task], None]
_PATIENCE = 240  # letters of an error that are shown


class Cancelled(Exception):
    """The work is no longer wanted."""


class Panel(widgets.VBox):
    """A widget over a run, told in a sentence where no front end shows it."""

    what = "panel"

    def __repr__(self) -> str:
        return f"The {self.what} is shown in JupyterLab (`make lab`); what stands above says the same without it."


class Work(widgets.HBox):
    """A progress bar, a button that cancels, and a line of text, for one panel.

    A new `start` cancels what is under way, which leaves the model as it was before it ends.
    """

    def __init__(self) -> None:
        self.bar = widgets.IntProgress(layout={"width": "160px", "display": "none"})
        self.button = widgets.Button(description="cancel", disabled=True, layout={"width": "80px"})
        self.message = widgets.HTML("ready")
        for part, name in ((self.message, "mipnb-message"), (self.button, "mipnb-cancel")):
            part.add_class(name)
        self.button.on_click(lambda _: self.cancel())
        self._stop, self._turn, self._thread = threading.Event(), threading.Lock(), None
        super().__init__([self.button, self.bar, self.message])
        self.add_class("mipnb-work")

    def start(self, task: Task) -> None:
        """Run a task in a thread, once the one under way has ended; what it returns is the message."""
        self.cancel()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(task, self._stop), daemon=True)
        self._thread.start()

    def now(self, task: Task) -> None:
        """Run a task here and return when it is through."""
        self.cancel()
        self._stop = threading.Event()
        self._run(task, self._stop)

    def cancel(self) -> None:
        """Ask the task under way to end."""
        self._stop.set()

    def tell(self, error: Exception) -> None:
        """Show a user's slip."""
        self.message.value = slip(error)

    def wait(self, seconds: float = 60) -> None:
        """Return when the last started task is through; TimeoutError if it is not by then."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                raise TimeoutError(f"the work is not through after {seconds} s")

    def _run(self, task: Task, stop: threading.Event) -> None:
        def step(done: int, total: int) -> None:
            if stop.is_set():
                raise Cancelled
            self.bar.max, self.bar.value = total, done

        with self._turn, quiet():
            if stop.is_set():
                return
            self._busy(True)
            try:
                step(0, 1)
                told = task(step) or "ready"
            except Cancelled:
                told = "cancelled; what was done is shown"
            except (
                Exception
            ) as error:  # the user's slip, or ours: in a panel it is a line, never a stack trace
                told = slip(error)
            self._busy(False)
            self.message.value = told

    def _busy(self, busy: bool) -> None:
        self.bar.layout.display = "" if busy else "none"
        self.button.disabled = not busy
        if busy:
            self.message.value = "computing"


def slip(error: Exception) -> str:
    """An error as one line of HTML: its message, with its kind before it unless it is one of those meant for users."""
    text = line(error)
    text = text if len(text) <= _PATIENCE else text[:_PATIENCE] + " ..."
    meant = isinstance(error, ValueError | FileNotFoundError)
    return f'<span style="color:#B22222">{text if meant else f"{type(error).__name__}: {text}"}</span>'


def opened_or_slip(panel: Callable[[], widgets.Widget]) -> widgets.Widget:
    """A panel, or one line where its run cannot be opened."""
    set_theme()  # also where the notebook's own cells have not been run
    try:
        return panel()
    except (ValueError, FileNotFoundError) as error:
        return widgets.HTML(slip(error))
