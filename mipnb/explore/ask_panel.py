"""Ask both: one question to the vanilla model and to edits of it."""

from __future__ import annotations

import ipywidgets as widgets
import pandas as pd

from mipnb.asking import first_portraits
from mipnb.benchmarks import Question
from mipnb.explore.ask import ask_both, fitted
from mipnb.explore.drawing import html_table
from mipnb.explore.opened import GROUPS, Opened
from mipnb.explore.path_panel import located_people, located_questions
from mipnb.explore.work import Panel, Run, Step, Work


class AskPanel(Panel):
    """A person or an uploaded picture, a typed question, the models to ask."""

    what = "panel to ask in"

    def __init__(self, opened: Opened, max_new_tokens: int) -> None:
        self.opened, self.max_new_tokens = opened, max_new_tokens
        self.portraits = first_portraits(
            q for group in GROUPS for q in opened.asked[group, "image_text"].values()
        )
        self.person = widgets.Dropdown(description="person", options=located_people(opened, "image_text"))
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="own picture")
        self.pictured = widgets.Checkbox(True, description="show the picture", indent=False)
        self.question = widgets.Combobox(
            description="question",
            placeholder="choose or type",
            ensure_option=False,
            continuous_update=False,
            layout={"width": "460px"},
        )
        self.value = widgets.Text(
            description="true value", placeholder="for a question of your own", continuous_update=False
        )
        names = sorted(opened.edits, key=lambda name: not name.startswith("edited"))
        self.models = widgets.SelectMultiple(
            description="beside",
            options=names,
            value=names[:1],
            rows=7,
            layout={"width": "220px"},
            style={"description_width": "50px"},
        )
        self.button = widgets.Button(description="ask", button_style="primary")
        self.picture = widgets.Image(layout={"width": "110px"})
        self.table, self.work = widgets.HTML(), Work()
        self._person_changed()
        self._ask(self.work.now)
        self.person.observe(lambda _: self._person_changed(), "value")
        self.pictured.observe(lambda _: self._options(), "value")
        self.button.on_click(lambda _: self._ask(self.work.start))
        left = widgets.VBox(
            [self.person, widgets.HBox([self.pictured, self.upload]), self.question, self.value],
            layout={"overflow": "visible"},
        )
        super().__init__(
            [
                widgets.HBox([left, self.models, self.picture], layout={"flex_flow": "row wrap"}),
                widgets.HBox([self.button, self.work]),
                self.table,
            ]
        )
        self.add_class("mipnb-ask")

    def _person_changed(self) -> None:
        self.picture.value = self.portraits[self.person.value]
        self.upload.value, self.value.value = (), ""
        self._options()

    def _options(self) -> None:
        known = located_questions(self.opened, self.person.value, self._modality())
        self.question.options = [prompt for prompt, _ in known]
        self.question.value = known[0][0] if known else ""

    def _modality(self) -> str:
        return "image_text" if self.pictured.value else "text"

    def asked(self) -> Question:
        """The question as the controls have it; one of the benchmark's with its right answer."""
        prompt, own = self.question.value.strip(), self.upload.value
        for text, name in located_questions(self.opened, self.person.value, self._modality()):
            if text == prompt and not own:
                return self.opened.asked[self.opened.group_of(name, self._modality()), self._modality()][name]
        picture = self.portraits[self.person.value] if self.pictured.value else None
        if own and self.pictured.value:
            picture = fitted(bytes(own[0]["content"]), picture)
        return Question(self.person.value, "GEN", prompt, "", image=picture, value=self.value.value.strip())

    def _ask(self, run: Run) -> None:
        def task(step: Step) -> str:
            """Ask each model chosen, one after the other; the line that says what was done."""
            self.table.value = ""  # answers to another question would stand below a slip
            self.picture.value = self.portraits[self.person.value]
            question = self.asked()
            if question.image is not None:
                self.picture.value = question.image
            chosen, parts = ["vanilla", *self.models.value], []
            for number, name in enumerate(chosen):
                step(number, len(chosen))
                edits = {} if name == "vanilla" else {name: self.opened.edits[name]}
                with self.opened.lock:
                    model, processor = self.opened.model, self.opened.processor
                    found = ask_both(model, processor, question, edits, self.max_new_tokens)
                parts.append(found if name == "vanilla" else found[1:])
                self.table.value = html_table(pd.concat(parts).set_index("model"), classes=["mipnb-answers"])
            return f"right: {question.answer}" if question.answer else "right: not known to the benchmark"

        run(task)
