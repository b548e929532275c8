"""`mipnb run` on a project of three tiny notebooks: what runs, what is skipped, what goes wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from mipnb import ahead
from mipnb.cli import main
from mipnb.run import locked

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "notebooks"
NAMES = ["01_numbers", "02_sum", "03_show"]


def make_project(folder: Path) -> Path:
    shutil.copytree(FIXTURES, folder / "notebooks")
    (folder / "pyproject.toml").touch()
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was run once."""
    root = make_project(tmp_path_factory.mktemp("finished") / "project")
    subprocess.run(
        [sys.executable, "-m", "mipnb.cli", "run"], cwd=root, check=True, stdout=subprocess.DEVNULL
    )
    return root


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a project that was never run."""
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture
def done(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a project that was run once."""
    shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def states(text: str) -> dict[str, str]:
    """Notebook -> state in a printed table."""
    rows = [line for line in text.splitlines() if line.startswith(tuple(NAMES))]
    return {row.split()[0]: re.split(r"\s{2,}", row)[1] for row in rows}


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `mipnb run`."""
    code = main(["run", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def expect(*what: str) -> dict[str, str]:
    return dict(zip(NAMES, what, strict=True))


def edit_notebook(path: Path, change) -> None:
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def test_a_run_leaves_everything_in_its_folder(finished: Path):
    run_dir = finished / "runs" / "pocket"
    for name in NAMES:
        assert {"notebook.ipynb", "params.json", "record.json", "usage.json", "log.txt"} <= set(
            os.listdir(run_dir / name)
        )
    assert json.loads((run_dir / "02_sum" / "sum.json").read_text()) == 42 + 43 + 44 + 45
    params = json.loads((run_dir / "01_numbers" / "params.json").read_text())
    assert params == {"run_dir": "runs/pocket", "seed": 42, "n_steps": 4}
    assert (run_dir / "01_numbers" / "log.txt").read_text() == "wrote 4\n"
    assert not list(run_dir.rglob("*running*"))


def test_nothing_runs_twice_from_anywhere_in_the_project(done: Path, capsys, monkeypatch):
    monkeypatch.chdir(done / "notebooks")
    before = (done / "runs/pocket/03_show/notebook.ipynb").stat().st_mtime_ns
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert states(out) == expect("up to date", "up to date", "up to date")
    assert "[3/3] 03_show: up to date" in out
    assert (done / "runs/pocket/03_show/notebook.ipynb").stat().st_mtime_ns == before


def test_every_kernel_is_started_ahead_and_none_is_left(done: Path, capsys, monkeypatch):
    taken, take = [], ahead.take
    monkeypatch.setattr(ahead, "take", lambda *what: taken.append(take(*what)) or taken[-1])
    assert run(capsys, "--force")[0] == 0
    assert [process is not None for process in taken] == [True] * len(NAMES)
    assert run(capsys, "--only", "02", "--force")[0] == 0
    assert len(taken) == len(NAMES) + 1
    assert taken[-1]
    assert not ahead._WAITING


def test_the_totals_are_of_all_processes_together(fresh: Path, capsys):
    code, out, _ = run(capsys, "--only", "01")
    assert code == 0
    total = float(out.splitlines()[-1].split()[-1])
    own = psutil.Process().memory_full_info().uss / 2**30
    assert own < total < own + 3, "this process and the kernel's"


def test_a_parameter_reruns_what_takes_it_and_what_follows(done: Path, capsys):
    code, out, _ = run(capsys, "-p", "steering_scale", "2")
    assert code == 0
    assert states(out) == expect("up to date", "ran", "ran")
    assert "parameters changed: steering_scale" in out
    assert json.loads((done / "runs/pocket/03_show/shown.json").read_text())["total"] == 348


def test_the_list_says_why_and_runs_nothing(done: Path, capsys):
    code, out, _ = run(capsys, "--list", "-p", "seed", "7")
    assert code == 0
    assert states(out) == expect("to run", "to run", "to run")
    assert "parameters changed: seed" in out
    assert "after 01_numbers" in out
    assert (done / "runs/pocket/01_numbers/record.json").exists()
    assert states(run(capsys, "--list")[1]) == expect("up to date", "up to date", "up to date")


def test_outputs_of_a_notebook_do_not_count_but_its_source_does(done: Path, capsys):
    path = done / "notebooks" / "02_sum.ipynb"

    def fill(notebook):
        notebook.cells[1].execution_count = 3
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="x")]

    edit_notebook(path, fill)
    assert states(run(capsys, "--list")[1])["02_sum"] == "up to date"
    edit_notebook(path, lambda notebook: notebook.cells[-1].update(source=notebook.cells[-1].source + "\n"))
    assert states(run(capsys, "--list")[1])["02_sum"] == "to run"


def test_a_lost_artefact_is_made_again_and_an_equal_one_changes_nothing_else(done: Path, capsys):
    (done / "runs/pocket/01_numbers/numbers.json").unlink()
    code, out, _ = run(capsys)
    assert code == 0
    assert states(out) == expect("ran", "up to date", "up to date")


def test_a_changed_artefact_is_noticed(done: Path, capsys):
    (done / "runs/pocket/02_sum/sum.json").write_text("1")
    out = run(capsys, "--list")[1]
    assert "outputs changed: sum.json" in out
    assert states(out) == expect("up to date", "to run", "to run")


def test_from_runs_a_notebook_and_what_follows(done: Path, capsys):
    code, out, _ = run(capsys, "--from", "2")
    assert code == 0
    assert states(out) == expect("up to date", "ran", "ran")


def test_only_runs_one_notebook_on_what_is_there(done: Path, capsys):
    code, out, err = run(capsys, "--only", "03_show", "-p", "seed", "7", "-p", "batch_size", "4")
    assert code == 0
    assert states(out) == {"03_show": "ran"}
    assert "do not take seed" in err
    assert states(run(capsys, "--only", "03", "-p", "batch_size", "4")[1]) == {"03_show": "up to date"}
    out = run(capsys, "--only", "03", "-p", "batch_size", "4", "--force")[1]
    assert states(out) == {"03_show": "ran"}


def test_only_says_when_it_builds_on_something_stale(done: Path, capsys):
    code, _, err = run(capsys, "--only", "03", "-p", "steering_scale", "3")
    assert code == 0
    assert "02_sum is not up to date" in err


def test_only_without_the_earlier_artefact_names_its_maker(fresh: Path, capsys):
    code, out, err = run(capsys, "--only", "03")
    assert (code, out) == (2, "")
    assert "sum.json is missing. Notebook 02_sum makes it" in err
    assert not (fresh / "runs/pocket/03_show").exists()


def test_runs_have_names(fresh: Path, capsys):
    assert run(capsys, "--name", "mine", "--only", "1")[0] == 0
    assert (fresh / "runs/mine/01_numbers/numbers.json").exists()
    assert not (fresh / "runs/pocket").exists()


def test_a_moved_run_stays_up_to_date(done: Path, capsys):
    (done / "runs/pocket").rename(done / "runs/moved")
    assert states(run(capsys, "--name", "moved")[1]) == expect("up to date", "up to date", "up to date")


def test_parameter_files_are_found_by_path_and_by_name(done: Path, capsys):
    (done / "params").mkdir()
    (done / "params" / "small.yaml").write_text("batch_size: 2\n")
    for given in ("small", "params/small.yaml", str(done / "params" / "small.yaml")):
        assert states(run(capsys, "--list", "--params", given)[1]) == expect(
            "up to date", "up to date", "to run"
        )
    code, _, err = run(capsys, "--params", "none")
    assert code == 2
    assert "parameter file none is missing" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "top_k", "3"], "did you mean text_top_k or vision_top_k"),
        (["-p", "seed", "many"], "valid integer"),
        (["-p", "seed", "[1,"], "cannot read the value"),
        (["--only", "44"], "there are 01_numbers"),
        (["--from", "1", "--only", "2"], "exclude each other"),
        (["--only", "2", "--with", "3"], "exclude each other"),
        (["--name", "../x"], "plain folder name"),
        (["--name", ""], "plain folder name"),
    ],
)
def test_slips_are_told_before_any_work(done: Path, capsys, arguments: list[str], words: str):
    before = {path: path.stat().st_mtime_ns for path in (done / "runs").rglob("*")}
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in (done / "runs").rglob("*")} == before


def test_a_failed_notebook_stops_the_run_and_is_kept(fresh: Path, capsys):
    folder = fresh / "runs" / "pocket" / "02_sum"
    folder.mkdir(parents=True)
    (folder / "fail").touch()
    code, out, err = run(capsys)
    assert code == 1
    assert states(out) == expect("ran", "failed", "waiting")
    for words in (
        "02_sum.ipynb",
        "In [6]",
        "ValueError: the sum is wrong",
        str(folder / "notebook.failed.ipynb"),
    ):
        assert words in err
    assert "Traceback" not in err
    assert len(err.splitlines()) < 10
    assert (folder / "notebook.failed.ipynb").exists()
    assert not (folder / "record.json").exists()
    assert "failed last time" in run(capsys, "--list")[1]
    (folder / "fail").unlink()
    code, out, _ = run(capsys)
    assert code == 0
    assert states(out) == expect("up to date", "ran", "ran")
    assert not (folder / "notebook.failed.ipynb").exists()


def test_a_dead_kernel_is_a_failure(done: Path, capsys):
    (done / "runs/pocket/02_sum/die").touch()
    code, _, err = run(capsys, "--only", "2", "--force")
    assert code == 1
    assert "its kernel died" in err
    assert states(run(capsys, "--list")[1]) == expect(*["up to date"] * 3), (
        "the earlier results are untouched"
    )


def test_a_failure_leaves_earlier_results_what_they_were(done: Path, capsys):
    folder = done / "runs/pocket/02_sum"
    names = ("record.json", "usage.json", "params.json", "sum.json")
    before = {name: (folder / name).read_bytes() for name in names}
    (folder / "fail").touch()
    assert run(capsys, "-p", "steering_scale", "3")[0] == 1
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert states(run(capsys, "--list", "-p", "steering_scale", "3")[1])["02_sum"] == "to run"
    assert states(run(capsys, "--list")[1]) == expect(*["up to date"] * 3)


def test_a_failure_that_has_changed_results_does_not_pass_for_them(done: Path, capsys):
    folder = done / "runs/pocket/02_sum"
    edit_notebook(
        done / "notebooks" / "02_sum.ipynb",
        lambda notebook: notebook.cells[-1].update(source="write_json(folder / 'sum.json', 1)\n1 / 0"),
    )
    assert run(capsys)[0] == 1
    assert not (folder / "record.json").exists()
    assert "failed last time" in run(capsys, "--list")[1]


def test_a_notebook_must_write_what_the_table_says(done: Path, capsys):
    table = done / "notebooks" / "stages.yaml"
    table.write_text(table.read_text().replace("numbers.json", "numbers.json, more.json"))
    code, _, err = run(capsys)
    assert code == 1
    assert "ended without writing more.json" in err
    assert states(run(capsys, "--list")[1])["01_numbers"] == "to run"


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def hear_ctrl_c() -> None:
    """A shell makes what it starts in the background deaf to Ctrl-C, these tests and all they start included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def hanging(fresh: Path):
    """A run that waits within its second notebook, as a process."""
    folder = fresh / "runs" / "pocket" / "02_sum"
    folder.mkdir(parents=True)
    (folder / "wait").touch()
    command = [sys.executable, "-m", "mipnb.cli", "run"]
    process = subprocess.Popen(command, cwd=fresh, stdout=subprocess.DEVNULL, preexec_fn=hear_ctrl_c)
    try:
        running = folder / "notebook.running.ipynb"
        wait_for(lambda: running.exists() and '"execution_count": 5' in running.read_text())
        (folder / "wait").unlink()
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_run_continues_where_it_was(hanging: subprocess.Popen, fresh: Path, capsys):
    kernels = psutil.Process(hanging.pid).children(recursive=True)
    assert kernels
    hanging.send_signal(signal.SIGKILL)
    hanging.wait()
    wait_for(lambda: not any(kernel.is_running() and kernel.status() != "zombie" for kernel in kernels))
    code, out, _ = run(capsys)
    assert code == 0
    assert states(out) == expect("up to date", "ran", "ran")
    assert not list((fresh / "runs").rglob("*running*"))


def test_a_refused_run_leaves_no_folder_and_takes_none_away(fresh: Path, capsys):
    assert run(capsys, "--only", "02", "--name", "first")[0] == 2
    assert not (fresh / "runs" / "first").exists()
    (fresh / "runs" / "second").mkdir(parents=True)
    assert run(capsys, "--only", "02", "--name", "second")[0] == 2
    assert (fresh / "runs" / "second").is_dir()


def test_a_folder_that_vanishes_hides_no_error(tmp_path: Path):
    def fail(folder: Path) -> None:
        shutil.rmtree(folder)
        raise KeyError("the real one")

    with pytest.raises(KeyError, match="the real one"), locked(tmp_path / "run"):
        fail(tmp_path / "run")


def test_two_runs_on_one_folder_are_refused(hanging: subprocess.Popen, fresh: Path, capsys):
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "another `mipnb run` is working in" in err
    assert hanging.poll() is None
    assert states(run(capsys, "--list")[1])["01_numbers"] == "up to date"


def test_ctrl_c_is_no_stack_trace(hanging: subprocess.Popen):
    hanging.send_signal(signal.SIGINT)
    assert hanging.wait(timeout=120) == 130


def test_notebooks_run_in_this_python_whatever_is_called_python3(done: Path, capsys, monkeypatch):
    kernel = done / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(
        json.dumps({"argv": ["/nonexistent/python"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(done / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    assert run(capsys, "--only", "3", "--force")[0] == 0
    shown = json.loads((done / "runs/pocket/03_show/shown.json").read_text())
    assert Path(shown["python"]).parent == Path(sys.executable).parent


def test_plain_papermill_runs_a_notebook_and_refuses_a_misspelt_parameter(done: Path):
    command = [sys.executable, "-m", "papermill", "notebooks/01_numbers.ipynb", "out.ipynb", "-k", "python3"]
    good = subprocess.run([*command, "-p", "seed", "5"], cwd=done, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert json.loads((done / "runs/pocket/01_numbers/numbers.json").read_text())[0] == 5
    bad = subprocess.run([*command, "-p", "sed", "5"], cwd=done, capture_output=True, text=True)
    assert bad.returncode != 0
    assert "did you mean seed" in bad.stderr
