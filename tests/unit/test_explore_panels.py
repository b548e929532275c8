"""Widgets without a browser: a slip is a line, the latest wish wins, cancel stops, controls change what is shown."""

import threading
import time
from types import SimpleNamespace

import ipywidgets as widgets
import pytest

from mipnb.benchmarks import Question
from mipnb.explore import opened
from mipnb.explore.panels import path_explorer
from mipnb.explore.path_panel import located_questions
from mipnb.explore.work import Panel, Work, slip
from mipnb.progress import quiet, silent


def test_a_slip_is_one_escaped_line():
    told = slip(ValueError("no <b>such</b>\nquestion"))
    assert "\n" not in told
    assert "no &lt;b&gt;such&lt;/b&gt; question" in told
    assert "ValueError" not in told
    assert "KeyError" in slip(KeyError("x"))


def test_an_error_in_a_task_is_told_and_the_next_task_works():
    work = Work()

    def wrong(step):
        raise RuntimeError("broken")

    work.start(wrong)
    work.wait()
    assert "RuntimeError: broken" in work.message.value
    assert work.button.disabled
    work.start(lambda step: "fine")
    work.wait()
    assert work.message.value == "fine"


def test_cancel_stops_at_the_next_step_and_a_new_task_supersedes():
    work, begun, seen = Work(), threading.Event(), []

    def long(step):
        begun.set()
        for number in range(1000):
            step(number, 1000)
            seen.append(number)
            time.sleep(0.01)

    work.start(long)
    assert begun.wait(5)
    work.cancel()
    work.wait(5)
    assert len(seen) < 1000
    assert "cancelled" in work.message.value
    begun.clear()
    work.start(long)
    assert begun.wait(5)
    work.start(lambda step: "the later one")
    work.wait(5)
    assert work.message.value == "the later one"


def test_bars_are_quiet_in_the_thread_that_asked_alone(monkeypatch):
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with quiet():
        assert silent()
        found = []
        thread = threading.Thread(target=lambda: found.append(silent()))
        thread.start()
        thread.join()
    assert found == [False]
    assert not silent()


def test_a_run_that_is_not_there_is_a_line(tmp_path):
    shown = path_explorer(tmp_path / "nothing")
    assert isinstance(shown, widgets.HTML)
    assert "02_attribution makes it" in shown.value


def test_a_cell_in_an_executed_notebook_opens_the_run_that_it_is_of(tmp_path, monkeypatch):
    for stage in ("02_attribution", "15_explore"):
        (tmp_path / "mine" / stage).mkdir(parents=True)
    monkeypatch.setattr(opened, "_last", [])
    monkeypatch.chdir(tmp_path / "mine" / "15_explore")
    assert "mine/02_attribution/record.json is missing" in path_explorer().value


@pytest.mark.parametrize("text", ["a" * 1000])
def test_a_long_error_is_cut(text):
    assert len(slip(ValueError(text))) < 400


def test_without_a_front_end_a_panel_is_a_sentence():
    class Some(Panel):
        what = "path explorer"

    shown = Some()._repr_mimebundle_()["text/plain"]
    assert shown.startswith("The path explorer is shown in JupyterLab")
    assert shown.endswith(".")


def test_a_question_asked_of_several_pictures_is_numbered():
    def asked(person, prompt):
        return Question(person, "VGEN", prompt, "Ann", image=b"")

    forget = {
        "a": asked("1", "Who?"),
        "b": asked("2", "Who?"),
        "c": asked("1", "Where?"),
        "d": asked("1", "Who?"),
    }
    opened = SimpleNamespace(asked={("forget", "image_text"): forget, ("retain", "image_text"): {}})
    found = located_questions(opened, "1", "image_text")
    assert found == [("Who?", "a"), ("Where?", "c"), ("Who? (2)", "d")]
