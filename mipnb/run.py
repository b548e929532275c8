"""`mipnb run`: the notebooks of a run as a graph of tasks; doit decides what runs, papermill runs it.

Results are up to date by the record in their own folder (`mipnb.state`), written last and whole, so that a
run that is killed at any moment continues where it was; doit keeps no file of its own.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from mipnb import ahead
from mipnb.artefacts import atomic_path, project_root, stage_dir, write_json
from mipnb.outcome import NotebookFailedError, Outcome
from mipnb.plan import Plan, check_plan, reasons_to_run
from mipnb.report import LAST_USAGE, USAGE
from mipnb.stages import Stage, notebook_parameters
from mipnb.state import RECORD, ingredients, outputs

if TYPE_CHECKING:
    from doit.task import Task

__all__ = ["locked", "run_plan", "run_stage"]

PARAMETERS = "params.json"


def run_plan(plan: Plan) -> list[Outcome]:
    """Runs what is not up to date, up to the first failure, with a line of progress each.

    Returns:
        What became of each selected notebook. The run goes no further than the first that failed.

    Raises:
        ValueError: If another process runs on the same folder, or an input is wrong (see `mipnb.checks`).
        FileNotFoundError: If an input or an earlier artefact is missing.
    """
    with locked(plan.run):
        stale = [name for name in plan.selected if reasons_to_run(plan, name)]
        try:
            if stale:
                ahead.start(plan.stages[stale[0]].notebook, project_root())
                _checked_apart(plan)
            return _run_graph(plan)
        finally:
            ahead.stop()


def _checked_apart(plan: Plan) -> None:
    """As `check_plan`, in a process that ends: torch and the rows of the data would stay in memory beside the notebooks."""
    fresh = multiprocessing.get_context("spawn")
    deaf = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process
    with ProcessPoolExecutor(1, fresh, signal.signal, deaf) as pool:
        pool.submit(check_plan, plan).result()


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the run's folder; the lock ends with the process, however that ends.

    A folder that was made for this, and into which nothing came, goes again.

    Raises:
        ValueError: If another process holds it.
    """
    made = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"another `mipnb run` is working in {run}: wait until it ends, "
            "or give this run a name of its own (--name)"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            if made and [path.name for path in run.iterdir()] == [".lock"]:
                Path(lock.lock_file).unlink()
                run.rmdir()
        lock.release()


def _run_graph(plan: Plan) -> list[Outcome]:
    """Hands the notebooks to doit as tasks, in its own process and with its database in memory."""
    from doit.control import TaskControl
    from doit.dependency import Dependency, SqliteDB
    from doit.runner import Runner

    outcomes = {name: Outcome(name) for name in plan.selected}
    control = TaskControl([_task(plan, outcome) for outcome in outcomes.values()])
    control.process(list(plan.selected))
    runner = Runner(Dependency(SqliteDB, ":memory:"), _reporter(plan, outcomes))
    runner.run_all(control.task_dispatcher())
    return list(outcomes.values())


def _task(plan: Plan, outcome: Outcome) -> "Task":
    """Returns the doit task of one notebook."""
    from doit.exceptions import TaskFailed
    from doit.task import Task

    def is_up_to_date() -> bool:
        outcome.reasons = reasons_to_run(plan, outcome.name)
        return not outcome.reasons

    def action() -> "TaskFailed | None":
        try:
            run_stage(plan, plan.stages[outcome.name], _following(plan, outcome.name))
        except (NotebookFailedError, ValueError, OSError) as error:
            return TaskFailed(str(error))

    before = [read for read in plan.stages[outcome.name].reads if read in plan.selected]
    return Task(outcome.name, [action], task_dep=before, uptodate=[is_up_to_date], io={"capture": False})


def run_stage(plan: Plan, stage: Stage, following: Path | None = None) -> None:
    """Runs one notebook and records what its results were made from; the record comes last.

    A notebook that fails before it has changed any earlier results leaves them as up to date as they were.

    Args:
        plan: What is run.
        stage: The notebook.
        following: The notebook that runs next in this process, if its kernel is to be started already.

    Raises:
        NotebookFailedError: If a cell raised an error, the kernel died, or an artefact was not written.
    """
    from mipnb.execute import execute

    folder = stage_dir(plan.run, stage.name)
    kept = {name: folder / name for name in (RECORD, USAGE, PARAMETERS)}
    earlier = {name: path.read_bytes() for name, path in kept.items() if path.exists()}
    (folder / RECORD).unlink(missing_ok=True)
    if (folder / USAGE).exists():
        os.replace(folder / USAGE, folder / LAST_USAGE)
    values = {name: getattr(plan.params, name) for name in notebook_parameters(stage.notebook)}
    write_json(folder / PARAMETERS, values)
    made_from = ingredients(stage, plan.params, plan.run, plan.stages)
    try:
        seconds = execute(stage.notebook, values, folder, project_root(), following)
    except NotebookFailedError:
        _put_back(earlier, stage, plan.run)
        raise
    if missing := [name for name in stage.writes if not (folder / name).exists()]:
        raise NotebookFailedError(
            f"notebook {stage.notebook}\nended without writing {', '.join(missing)} into {folder}"
        )
    write_json(
        folder / RECORD, made_from | {"outputs": outputs(stage, plan.run), "seconds": round(seconds, 1)}
    )


def _put_back(earlier: Mapping[str, bytes], stage: Stage, run: Path) -> None:
    """Puts the files back that say what earlier results were made from, if these are as they were."""
    if RECORD in earlier and json.loads(earlier[RECORD])["outputs"] == outputs(stage, run):
        for name, content in earlier.items():
            with atomic_path(run / stage.name / name) as temporary:
                temporary.write_bytes(content)


def _following(plan: Plan, name: str) -> Path | None:
    """Returns the notebook that will run after this one, whose kernel can start already; None if this is the last one."""
    later = plan.selected[plan.selected.index(name) + 1 :]
    found = (other for other in later if name in plan.stages[other].reads or reasons_to_run(plan, other))
    return next((plan.stages[other].notebook for other in found), None)


def _reporter(plan: Plan, outcomes: dict[str, Outcome]) -> object:
    """Returns a doit reporter that prints one line a notebook and keeps its outcome."""
    from doit.reporter import ZeroReporter

    class Progress(ZeroReporter):
        """One line a notebook: its number, why it runs, how long it took."""

        def _begin(self, task: "Task", text: str) -> None:
            number = plan.selected.index(task.name) + 1
            print(f"[{number}/{len(plan.selected)}] {task.name}: {text}", end="", flush=True)

        def execute_task(self, task: "Task") -> None:
            outcome = outcomes[task.name]
            outcome.add_costs(plan.run)
            last = f", {outcome.seconds:.0f} s last time" if outcome.seconds else ""
            self._begin(task, f"{'; '.join(outcome.reasons)}{last} ... ")

        def skip_uptodate(self, task: "Task") -> None:
            self._begin(task, "up to date\n")
            outcomes[task.name].settle("up to date", plan.run)

        def add_success(self, task: "Task") -> None:
            outcomes[task.name].settle("ran", plan.run)
            print(f"{outcomes[task.name].seconds:.1f} s", flush=True)

        def add_failure(self, task: "Task", fail: object) -> None:
            print("failed", flush=True)
            outcomes[task.name].error = fail.message if fail.get_name() == "TaskFailed" else fail.get_msg()
            outcomes[task.name].settle("failed", plan.run)

    return Progress(sys.stdout, {})
