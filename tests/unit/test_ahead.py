"""A kernel that is started ahead: it has imported what its notebook imports, and is the same kernel otherwise."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest

from mipnb import ahead
from mipnb.execute import execute
from mipnb.outcome import NotebookFailedError


@pytest.fixture(autouse=True)
def nothing_waits():
    yield
    ahead.stop()


def notebook(path: Path, *cells: str) -> Path:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return path


def outputs(folder: Path) -> list[dict]:
    cells = json.loads((folder / "notebook.ipynb").read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def said(folder: Path) -> str:
    return "".join("".join(output.get("text", "")) for output in outputs(folder))


def waiting() -> psutil.Process:
    return psutil.Process(ahead._WAITING[0].kernel.provisioner.pid)


def test_imports_are_those_of_all_cells(tmp_path):
    file = notebook(
        tmp_path / "a.ipynb", "import os\nx = 1\nfrom json import dumps", "%pip list", "import ast as tree"
    )
    assert list(ahead.imports(file)) == ["import os", "from json import dumps", "import ast as tree"]


def test_the_next_notebook_finds_its_imports_made(tmp_path):
    look = "import sys\nprint('colorsys' in sys.modules, 'colorsys' in dir())"
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    table = "import pandas as pd\nprint(pd.get_option('display.max_columns'))"
    first = notebook(tmp_path / "first.ipynb", look, "import colorsys", table, "import time; time.sleep(4)")
    second = notebook(tmp_path / "second.ipynb", look, "import colorsys", table, draw)
    for file, following in ((first, second), (second, None)):
        (tmp_path / file.stem).mkdir()
        execute(file, {}, tmp_path / file.stem, tmp_path, following)
    assert said(tmp_path / "first").splitlines() == ["False False", "20"]
    assert said(tmp_path / "second").splitlines() == ["True False", "20"], "imported, and as in a notebook"
    assert any("image/png" in output.get("data", {}) for output in outputs(tmp_path / "second")), (
        "drawn inline"
    )


def test_it_waits_beside_the_last_cells_only(tmp_path, monkeypatch):
    done, begun = tmp_path / "done.txt", []
    done.touch()
    monkeypatch.setattr(ahead, "start", lambda *at: begun.append((at, len(done.read_text()))))
    file = notebook(tmp_path / "a.ipynb", *[f"open({str(done)!r}, 'a').write('x');"] * 9)
    (tmp_path / "made").mkdir()
    execute(file, {}, tmp_path / "made", tmp_path, following=tmp_path / "b.ipynb")
    assert begun[0] == ((tmp_path / "b.ipynb", tmp_path), 7)


def test_what_has_changed_since_is_not_used(tmp_path):
    file = notebook(tmp_path / "a.ipynb", "import os")
    ahead.start(file, tmp_path)
    process = waiting()
    os.utime(file, (time.time() + 5,) * 2)
    assert ahead.take(file) is None
    assert not process.is_running()


def test_one_that_waits_for_another_notebook_ends(tmp_path):
    one, other = (notebook(tmp_path / f"{name}.ipynb", "import os") for name in "ab")
    ahead.start(one, tmp_path)
    process = waiting()
    ahead.start(one, tmp_path)
    assert waiting() == process, "it waits already"
    ahead.start(other, tmp_path)
    assert not process.is_running()
    assert ahead.take(one) is None
    assert not ahead._WAITING


def test_one_that_has_died_is_replaced(tmp_path):
    file = notebook(tmp_path / "a.ipynb", "print('here')")
    ahead.start(file, tmp_path)
    process = waiting()
    process.kill()
    process.wait(timeout=60)  # a kill takes a moment
    (tmp_path / "made").mkdir()
    execute(file, {}, tmp_path / "made", tmp_path)
    assert said(tmp_path / "made") == "here\n"


@pytest.fixture
def dying(monkeypatch):
    """So many kernels end as they start, as one does whose port another has taken; tells how many were started."""
    new, started = ahead.new, []

    def dies(count: int) -> list:
        def one(working_dir, *lines):
            lines = ("import os; os._exit(1)",) if len(started) < count else lines
            started.append(new(working_dir, *lines))
            return started[-1]

        monkeypatch.setattr(ahead, "new", one)
        return started

    return dies


def test_one_that_ends_before_it_is_asked_anything_is_started_again(tmp_path, dying):
    started = dying(2)
    file = notebook(tmp_path / "a.ipynb", "print('here')")
    (tmp_path / "made").mkdir()
    execute(file, {}, tmp_path / "made", tmp_path)
    assert said(tmp_path / "made") == "here\n"
    assert len(started) == 3


def test_one_that_never_starts_is_told_and_one_that_dies_at_work_is_not_repeated(tmp_path, dying):
    started = dying(99)
    file = notebook(tmp_path / "a.ipynb", "print('here')")
    (tmp_path / "made").mkdir()
    with pytest.raises(NotebookFailedError, match="could not be executed"):
        execute(file, {}, tmp_path / "made", tmp_path)
    assert len(started) == 3
    started = dying(0)
    began = len(started)
    file = notebook(tmp_path / "b.ipynb", "import os; os._exit(1)")
    with pytest.raises(NotebookFailedError, match="its kernel died"):
        execute(file, {}, tmp_path / "made", tmp_path)
    assert len(started) == began + 1


def test_it_ends_with_a_run_that_is_killed(tmp_path):
    file = notebook(tmp_path / "a.ipynb", "import os")
    script = f"""import os, pathlib
from mipnb import ahead
ahead.start(pathlib.Path({str(file)!r}), pathlib.Path({str(tmp_path)!r}))
print(ahead._WAITING[0].kernel.provisioner.pid, flush=True)
os.kill(os.getpid(), 9)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -9
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(timeout=60)


def test_time_counts_from_the_first_cell_of_one_that_has_waited(tmp_path):
    cell = "import pathlib\nfrom mipnb.report import finish\nfinish(pathlib.Path.cwd())"
    file = notebook(tmp_path / "a.ipynb", cell)
    ahead.start(file, tmp_path)
    time.sleep(6)
    (tmp_path / "made").mkdir()
    execute(file, {}, tmp_path / "made", tmp_path)
    assert json.loads((tmp_path / "usage.json").read_text())["seconds"] < 6


def test_idle_threads_sleep_soon_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert ahead.Kernel().kernel_spec.env["GOMP_SPINCOUNT"] == "2000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert ahead.Kernel().kernel_spec.env["GOMP_SPINCOUNT"] == "0"
