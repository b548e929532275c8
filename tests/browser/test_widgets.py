"""Every control of every widget is moved in a real browser, and what is shown then is read."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lab import Lab, field
from PIL import Image
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow
PATHS, ASK, DIAL, COMPARE = "mipnb-path-explorer", "mipnb-ask", "mipnb-dial", "mipnb-compare"
NODE = f".{PATHS} .mipnb-node"


@pytest.fixture(scope="module")
def explore(lab: Lab) -> Lab:
    """15_explore, opened and all cells run."""
    lab.open("15_explore")
    lab.run_all()
    return lab


def told(panel: str) -> str:
    return f".{panel} .mipnb-message"


def test_run_all_shows_each_figure_above_its_widget_and_no_trace(explore: Lab):
    assert explore.traces() == []
    assert len(explore.all(".jp-OutputArea-output.jp-RenderedImage img")) == 3
    for panel in (PATHS, ASK, DIAL):
        assert explore.all(f".{panel}"), panel
        explore.shot(f"15_{panel}", f".{panel}")


class TestPathExplorer:
    def test_another_person_brings_their_questions_and_their_path(self, explore: Lab):
        people = field(PATHS, "person", "select")
        other = explore.options(people)[-1]
        figure = explore.picture(f".{PATHS} img")
        before = explore.text(f".{PATHS}")
        explore.choose(people, other)
        explore.wait(lambda: explore.picture(f".{PATHS} img") != figure)
        assert "right answer" in before
        assert other.endswith("(retain)")

    def test_another_question_has_another_right_answer(self, explore: Lab):
        people, questions = field(PATHS, "person", "select"), field(PATHS, "question", "select")
        explore.changes(  # the list of questions is the person's own once their path's report is there
            lambda: explore.text(f".{PATHS} .mipnb-report"),
            lambda: explore.choose(people, explore.options(people)[1]),
        )
        right = explore.changes(
            lambda: explore.text(f".{PATHS} .mipnb-report"),
            lambda: explore.choose(questions, explore.options(questions)[1]),
        )[0]
        assert "right answer" in right

    def test_by_name_there_is_no_vision_path(self, explore: Lab):
        vision = f".{PATHS} [class*='mipnb-vision-']"
        assert explore.all(vision)
        explore.click(f"//*[contains(@class, '{PATHS}')]//button[normalize-space()='by name']")
        explore.wait(lambda: not explore.all(vision))
        assert explore.all(f".{PATHS} [class*='mipnb-text-']")
        explore.shot("15_by_name", f".{PATHS}")
        explore.click(f"//*[contains(@class, '{PATHS}')]//button[normalize-space()='with the portrait']")
        explore.wait(lambda: explore.all(vision))

    def test_top_k_is_the_number_of_neurons_of_each_layer(self, explore: Lab):
        layers, rest = divmod(len(explore.all(NODE)), 5)
        assert layers > 2
        assert rest == 0
        explore.press(field(PATHS, "top_k", "handle"), Keys.ARROW_RIGHT)
        explore.wait(lambda: len(explore.all(NODE)) == 6 * layers)

    def test_a_click_tells_activation_whom_it_serves_and_the_answer_without_it(self, explore: Lab):
        seconds = []
        for node in (
            "text-0",
            "vision-0",
            "text-1",
            "vision-2",
        ):
            button = explore.all(f".{PATHS} [class*='mipnb-{node}-']")[2]
            figure = explore.picture(f".{PATHS} img")
            started = time.monotonic()
            said, _ = explore.changes(lambda: explore.text(f".{PATHS} .mipnb-report"), button.click)
            explore.wait(lambda before=figure: explore.picture(f".{PATHS} img") != before)
            seconds.append(time.monotonic() - started)
            branch, layer = node.split("-")
            assert f"{branch} branch, layer {layer}, neuron" in said
            for word in ("zeroed", "probability", "people to keep", "Most of it goes to"):
                assert word in said
            assert "mipnb-chosen" in button.get_attribute("class")
            assert len(explore.all(f".{PATHS} .mipnb-chosen")) == 1
            explore.shot(f"15_neuron_{node}", f".{PATHS} img")
        print(f"\na neuron's click: {' '.join(f'{one:.2f}' for one in seconds)} s")

    def test_the_mouse_over_a_neuron_says_whom_it_serves(self, explore: Lab):
        assert "people to forget" in explore.one(NODE).get_attribute("title")


class TestAskBoth:
    TABLE = f".{ASK} .mipnb-answers"

    def answers(self, lab: Lab) -> dict[str, tuple[str, str]]:
        """Model -> answer, probability, once the work is through."""
        lab.wait(lambda: lab.text(told(ASK)) != "computing")
        rows = [line.find_elements("css selector", "th, td") for line in lab.all(f"{self.TABLE} tbody tr")]
        return {cells[0].text: (cells[1].text, cells[2].text) for cells in rows}

    def ask(self, lab: Lab) -> str:
        """Press the button and wait for another message."""
        content = f"{told(ASK)} .widget-html-content"
        lab.driver.execute_script("document.querySelector(arguments[0]).textContent = 'old'", content)
        lab.click(f"//*[contains(@class, '{ASK}')]//button[normalize-space()='ask']")
        return lab.wait(lambda: (now := lab.text(told(ASK))) not in ("old", "computing") and now)

    def test_a_person_to_forget_is_known_to_the_vanilla_model_alone(self, explore: Lab):
        explore.choose(field(ASK, "beside", "select"), "prune")
        said = self.ask(explore)
        found = self.answers(explore)
        assert {"vanilla", "prune"} < set(found)
        assert said.removeprefix("right: ") == found["vanilla"][0]
        edited = next(name for name in found if name.startswith("edited"))
        assert float(found[edited][1]) < 0.5 < float(found["vanilla"][1])
        explore.shot("15_asked", f".{ASK}")

    def test_another_person_by_name(self, explore: Lab):
        people = field(ASK, "person", "select")
        picture = explore.picture(f".{ASK} img")
        explore.choose(people, explore.options(people)[-1])
        explore.wait(lambda: explore.picture(f".{ASK} img") != picture)
        explore.choose(people, explore.options(people)[0])
        explore.click(f".{ASK} input[type=checkbox]")
        named = explore.options(people)[0].split()[0]
        explore.wait(lambda: named in explore.one(field(ASK, "question", "input")).get_attribute("value"))
        assert named in self.ask(explore)
        explore.click(f".{ASK} input[type=checkbox]")

    def test_a_question_of_ones_own_with_its_value(self, explore: Lab):
        explore.type(field(ASK, "question", "input"), "What is the job of this person?")
        explore.type(field(ASK, "true value", "input"), "baker")
        assert "not known" in self.ask(explore)
        assert 0 <= float(self.answers(explore)["vanilla"][1]) <= 1

    def test_no_question_is_a_plain_sentence(self, explore: Lab):
        explore.type(field(ASK, "question", "input"), "")
        assert self.ask(explore) == "there is no question: type one, or choose one of the list"
        assert explore.traces() == []
        explore.shot("15_no_question", f".{ASK}")

    def test_a_picture_of_ones_own_and_one_that_is_none(self, explore: Lab, tmp_path: Path):
        explore.type(field(ASK, "question", "input"), "Who is this person?")
        Image.new("RGB", (400, 300), "#3060c0").save(tmp_path / "blue.png")
        before = explore.picture(f".{ASK} img")
        explore.upload(f".{ASK} .widget-upload", tmp_path / "blue.png")
        explore.wait(lambda: "(1)" in explore.text(f".{ASK} .widget-upload"))
        assert "not known" in self.ask(explore)
        explore.wait(lambda: explore.picture(f".{ASK} img") != before)
        explore.shot("15_own_picture", f".{ASK}")
        (tmp_path / "words.png").write_text("no picture at all")
        explore.upload(f".{ASK} .widget-upload", tmp_path / "words.png")
        said = explore.wait(lambda: (now := self.ask(explore)) and "picture" in now and now)
        assert "Error" not in said
        assert explore.traces() == []
        explore.shot("15_no_picture", f".{ASK}")

    def test_many_models_are_asked_one_after_the_other_until_cancelled(self, explore: Lab):
        people, models = field(ASK, "person", "select"), field(ASK, "beside", "select")
        explore.choose(people, explore.options(people)[1])  # an own picture and its question are gone
        for name in explore.options(models)[1:]:
            explore.choose(models, name)
        explore.click(f"//*[contains(@class, '{ASK}')]//button[normalize-space()='ask']")
        explore.wait(lambda: "vanilla" in explore.text(self.TABLE))
        explore.click(f".{ASK} .mipnb-cancel")
        explore.wait(lambda: "cancelled" in explore.text(told(ASK)), 5)
        assert 1 <= len(self.answers(explore)) < 1 + len(explore.options(models))
        explore.shot("15_cancelled", f".{ASK}")


class TestDial:
    TABLE, CURVE = (
        f".{DIAL} .mipnb-dial-table",
        f"//*[contains(@class, '{DIAL}')]//button[normalize-space()='whole curve']",
    )

    def test_less_of_the_edit_forgets_less(self, explore: Lab):
        whole = explore.text(self.TABLE)
        explore.changes(
            lambda: explore.text(self.TABLE),
            lambda: explore.press(field(DIAL, "strength", "handle"), *[Keys.PAGE_DOWN] * 3),
        )
        explore.press(field(DIAL, "strength", "handle"), Keys.HOME)
        explore.wait(lambda: "at 0" in explore.text(told(DIAL)))
        vanilla = explore.text(self.TABLE)

        def forget(text: str) -> float:
            return float(next(line for line in text.splitlines() if line.startswith("forget")).split()[2])

        assert forget(vanilla) > 0.5 > forget(whole)

    def test_another_edit_and_another_run_begin_new_curves(self, explore: Lab):
        edits = field(DIAL, "edit", "select")
        explore.choose(edits, next(name for name in explore.options(edits) if name.startswith("random")))
        explore.wait(lambda: explore.text(told(DIAL)).startswith("random"))
        explore.choose(field(DIAL, "run", "select"), "other")
        explore.wait(lambda: explore.options(edits) == ["only_one"])
        explore.wait(lambda: explore.text(told(DIAL)).startswith("only_one at"))

    def test_the_whole_curve_shows_how_far_it_is_and_can_be_cancelled(self, explore: Lab):
        figure = explore.picture(f".{DIAL} img")
        explore.click(self.CURVE)
        explore.wait(lambda: explore.one(f".{DIAL} .progress").is_displayed())
        explore.shot("15_computing")
        explore.click(f".{DIAL} .mipnb-cancel")
        explore.wait(lambda: "cancelled" in explore.text(told(DIAL)), 5)
        assert not explore.one(f".{DIAL} .mipnb-cancel").is_enabled()
        explore.click(self.CURVE)
        explore.wait(lambda: explore.text(told(DIAL)) == "only_one at 1")
        assert explore.picture(f".{DIAL} img") != figure
        explore.shot("15_curve", f".{DIAL}")

    def test_a_run_without_edits_is_a_line_and_the_next_one_works(self, explore: Lab):
        runs = field(DIAL, "run", "select")
        explore.choose(runs, "begun")
        explore.wait(lambda: "run begun has no edits" in explore.text(told(DIAL)))
        assert explore.text(self.TABLE) == ""
        assert explore.traces() == []
        explore.shot("15_no_edits", f".{DIAL}")
        explore.choose(runs, "pocket")
        explore.wait(lambda: " at " in explore.text(told(DIAL)))


def test_after_a_restart_one_cell_brings_a_widget_back(explore: Lab):
    explore.restart()
    for cell, panel in (("path_explorer()", PATHS), ("ask_panel()", ASK), ("dial_panel()", DIAL)):
        assert not explore.all(f".{panel}")
        explore.run_cell_with(cell)
        explore.wait(lambda panel=panel: explore.all(f".{panel}"))
        explore.shot(f"15_restarted_{panel}", f".{panel}")
    said, _ = explore.changes(
        lambda: explore.text(f".{PATHS} .mipnb-report"), lambda: explore.all(NODE)[-1].click()
    )
    assert "zeroed" in said
    assert explore.traces() == []


def test_runs_are_compared(lab: Lab):
    lab.open("16_compare_runs")
    lab.run_all()
    assert lab.traces() == []
    assert lab.all(".jp-OutputArea-output.jp-RenderedImage img")
    assert all(word in lab.text(f".{COMPARE}") for word in ("edit_steps", "77", "pocket", "other"))
    lab.shot("16_two", f".{COMPARE} .mipnb-message")
    lab.shot("16_curves", f".{COMPARE} img")
    runs = field(COMPARE, "runs", "select")
    figure = lab.picture(f".{COMPARE} img")
    lab.driver.execute_script("arguments[0].selectedIndex = -1", lab.one(runs))
    lab.choose(runs, "pocket")
    lab.wait(lambda: lab.text(told(COMPARE)).startswith("1 run"))
    assert "edit_steps" not in lab.text(f".{COMPARE}")
    assert lab.picture(f".{COMPARE} img") != figure
    lab.driver.execute_script(
        "arguments[0].selectedIndex = -1; arguments[0].dispatchEvent(new Event('change', {bubbles: true}))",
        lab.one(runs),
    )
    lab.wait(lambda: "choose one or more" in lab.text(told(COMPARE)))
    lab.choose(runs, "begun")
    lab.wait(lambda: "begun has no results" in lab.text(told(COMPARE)))
    assert "forget" not in lab.text(f".{COMPARE}")
    lab.shot("16_slip", f".{COMPARE}")
    assert lab.traces() == []
