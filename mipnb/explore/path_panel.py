"""The path explorer: a question's path, and what each of its neurons does."""

from __future__ import annotations

import ipywidgets as widgets
import pandas as pd

from mipnb.benchmarks import Question
from mipnb.explore.drawing import blank, html_table, line, neuron_figure, png
from mipnb.explore.graph import mark, path_buttons
from mipnb.explore.neurons import NeuronReport, neuron_report, path_nodes, served, served_text
from mipnb.explore.opened import GROUPS, Opened
from mipnb.explore.work import Panel, Run, Step, Work
from mipnb.locating import PAIRS


def located_people(opened: Opened, modality: str) -> list[tuple[str, str]]:
    """People with located questions of a modality, those to forget first: ("Name (set)", person_id)."""
    found = {}
    for group in GROUPS:
        for question in opened.asked[group, modality].values():
            found.setdefault(question.person_id, f"{opened.names[question.person_id]} ({group})")
    return [(label, person) for person, label in found.items()]


def located_questions(opened: Opened, person: str, modality: str) -> list[tuple[str, str]]:
    """A person's located questions of a modality: (prompt, name of the question); one asked of several pictures is numbered."""
    found = [
        (question.prompt, name)
        for group in GROUPS
        for name, question in opened.asked[group, modality].items()
        if question.person_id == person
    ]
    prompts = [prompt for prompt, _ in found]
    before = [prompts[:index].count(prompt) for index, prompt in enumerate(prompts)]
    return [
        (f"{prompt} ({count + 1})" if count else prompt, name)
        for (prompt, name), count in zip(found, before, strict=True)
    ]


def pair_of(branch: str, modality: str) -> str:
    """The scores of a branch for questions of a modality, a key of `locating.PAIRS`."""
    return next(pair for pair, at in PAIRS.items() if at == (branch, modality))


class PathExplorer(Panel):
    """Controls, the path, and the chosen neuron."""

    what = "path explorer"

    def __init__(self, opened: Opened, max_new_tokens: int) -> None:
        self.opened, self.max_new_tokens = opened, max_new_tokens
        self.modality = widgets.ToggleButtons(
            options=[("with the portrait", "image_text"), ("by name", "text")]
        )
        self.person = widgets.Dropdown(description="person", options=located_people(opened, "image_text"))
        self.question = widgets.Dropdown(description="question", layout={"width": "520px"})
        self.top_k = widgets.IntSlider(5, 1, 12, description="top_k", continuous_update=False)
        self.graph, self.work = widgets.VBox(layout={"overflow": "auto hidden"}), Work()
        self.text, self.figure = (
            widgets.HTML(),
            widgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"}),
        )
        self._setting = False  # while controls are set from here, they draw nothing
        self._names(self.work.now)
        self.modality.observe(lambda _: self._people(), "value")
        self.person.observe(lambda _: self._names(self.work.start), "value")
        for control in (self.question, self.top_k):
            control.observe(lambda _: self._draw(self.work.start), "value")
        controls = [self.modality, widgets.HBox([self.person, self.top_k]), self.question]
        super().__init__([*controls, self.work, self.graph, self.figure, self.text])
        self.add_class("mipnb-path-explorer")

    def _people(self) -> None:
        """Another modality: the same person if they were asked so, too."""
        options, before = located_people(self.opened, self.modality.value), self.person.value
        people = [person for _, person in options]
        self._setting = True
        self.person.options = options
        self.person.value = before if before in people else people[0]
        self._setting = False
        self._names(self.work.start)

    def _names(self, run: Run) -> None:
        """Another person: their questions."""
        if self._setting:
            return
        options = located_questions(self.opened, self.person.value, self.modality.value)
        self._setting = True
        self.question.options = options
        self.question.value = options[0][1]
        self._setting = False
        self._draw(run)

    def _draw(self, run: Run) -> None:
        """Another question or top_k: its path, and its best neuron's report."""
        if self._setting:
            return
        nodes = path_nodes(self.opened, self.question.value, self.modality.value, self.top_k.value)
        self.graph.children = [path_buttons(nodes, self.choose, self._told)]
        best = nodes.loc[nodes.score.idxmax()]
        self.choose(best.branch, int(best.layer), int(best.neuron), run)

    def _served(self, branch: str, layer: int, neuron: int) -> pd.DataFrame:
        pair = pair_of(branch, self.modality.value)
        return served(
            {group: self.opened.scores[group, pair] for group in GROUPS}, layer, neuron, self.opened.names
        )

    def _told(self, branch: str, layer: int, neuron: int) -> str:
        return f"{branch}, layer {layer}, neuron {neuron}. {served_text(self._served(branch, layer, neuron))}"

    def choose(self, branch: str, layer: int, neuron: int, run: Run | None = None) -> None:
        """Show one neuron's report."""
        group = self.opened.group_of(self.question.value, self.modality.value)
        question = self.opened.asked[group, self.modality.value][self.question.value]

        mark(self.graph.children[0], branch, layer, neuron)

        def task(step: Step) -> str:
            """Look at the neuron and show it; the line that says what was done."""
            with self.opened.lock:
                at = (question, branch, layer, neuron, self.max_new_tokens)
                report = neuron_report(self.opened.model, self.opened.processor, *at)
            step(1, 2)
            self.text.value = report_html(report, question, self._served(branch, layer, neuron))
            figure = neuron_figure(report, question.image, blank(8.4 if branch == "text" else 3.2, 2.6))
            self.figure.value = png(figure)
            return f"neuron {neuron} of {branch} layer {layer}"

        (run or self.work.start)(task)


def report_html(report: NeuronReport, question: Question, people: pd.DataFrame) -> str:
    """A neuron in words: the answer with and without it, beside whom it serves (`people`, from `served`)."""
    first = people.head(5)[["name", "set", "n_questions", "score"]].set_index("name")
    first["score"] = first.score.map("{:.2g}".format)
    where = f"{report.branch} branch, layer {report.layer}, neuron {report.neuron}"
    return (
        '<div class="mipnb-report" style="display:flex;flex-wrap:wrap;gap:6px 48px;line-height:1.4">'
        '<div style="max-width:460px">'
        f"<b>{where}</b>; right answer: {line(question.answer)}{html_table(report.answers)}"
        f"{line(served_text(people))}</div><div><b>whom it serves most</b>{html_table(first)}</div></div>"
    )
