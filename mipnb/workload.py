"""How much a benchmark asks, as a planner assumes it: `params/benchmarks.json`, nothing is read of the benchmark.

Numbers of questions are those of formats (people x questions each), by task; of MLLMU-Bench's nine a person and modality,
five have options, and the rest are taken to be sentences and blanks in equal parts. Lengths are typical ones of a padded
batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipnb.artefacts import project_root, read_json
from mipnb.benchmarks.protocols import asks
from mipnb.benchmarks.questions import CHOICE_TASKS, PICTURED_TASKS
from mipnb.passes import Question
from mipnb.shapes import Shape

FILE = "params/benchmarks.json"
MODALITIES = ("text", "image_text")


@dataclass(frozen=True)
class Workload:
    """What is asked of a model.

    Attributes:
        name: of the benchmark.
        people: people to forget, and to keep.
        training: training questions a person, (text, with a picture).
        evaluation: questions a person in the evaluation, by task.
        others: questions about people that are in neither set, by task.
        choosing: how many of the people to keep can be asked to choose among options; they are asked first.
        test_set: whether the people are asked a second time, in other words and views.
        questions: a text and an image question.
        side: of a picture, pixels.
    """

    name: str
    people: tuple[int, int]
    training: tuple[int, int]
    evaluation: Mapping[str, int]
    others: Mapping[str, int]
    choosing: int
    test_set: bool
    questions: tuple[Question, Question]
    side: int

    def trained_on(self, modality: int) -> tuple[int, int]:
        """Training questions of the people to forget, and of those to keep, of a modality (0: text)."""
        forget, retain = self.people
        return forget * self.training[modality], retain * self.training[modality]

    def asked(self, n_eval_retain: int, protocol: str = "pocket") -> tuple[int, int]:
        """Questions of one model's evaluation under a protocol, (text, with a picture)."""
        kept, times, numbers = min(n_eval_retain, self.people[1]), 1 + self.test_set, [0, 0]
        for task in filter(asks(protocol), {**self.evaluation, **self.others}):
            people = self.people[0] + (min(kept, self.choosing) if task in CHOICE_TASKS else kept)
            count = times * people * self.evaluation.get(task, 0) + self.others.get(task, 0)
            numbers[task in PICTURED_TASKS] += count
        return tuple(numbers)


def read_workload(benchmark_dir: str, forget_ratio: int, shape: Shape) -> Workload:
    """The assumptions for a benchmark, with the lengths that the model's pictures have.

    Raises:
        ValueError: a benchmark that the file does not hold; the message names those it does.
    """
    table = read_json(project_root() / FILE)
    name = Path(benchmark_dir).name.lower()
    if name not in table:
        raise ValueError(
            f"benchmark_dir = {benchmark_dir}: {FILE} has no {name!r}, only {', '.join(table)}; add an entry"
        )
    entry = table[name]
    forget = round(entry["people"] * forget_ratio / 100)
    return Workload(
        name=name,
        people=(forget, entry["people"] - forget),
        training=_pair(entry["training"]),
        evaluation=entry["evaluation"],
        others=entry["others"],
        choosing=entry.get("retain_people_who_choose", entry["people"]),
        test_set=entry["test_set"],
        questions=_questions(entry, shape),
        side=shape.side or entry["image_side"],
    )


def _pair(entry: Mapping[str, int]) -> tuple[int, int]:
    return tuple(entry[modality] for modality in MODALITIES)


def _questions(entry: Mapping[str, Any], shape: Shape) -> tuple[Question, Question]:
    """A text question, and one with a picture, whose own positions come on top."""
    side, (text, pictured) = entry["image_side"], _pair(entry["positions"])
    with_picture = Question(pictured + shape.positions(side), entry["answer"], shape.patches(side))
    return Question(text, entry["answer"]), with_picture
