"""Passes forward and backward, one record a kind of pass, and those that editing and evaluating make.

Counts follow the loops of `editing.edit` and `generation.generate`, and are tested against them with hooks on the model;
those of locating are in `search_passes`. Costs (`costs`) are sums and maxima over the same records.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple


class Question(NamedTuple):
    """A typical question: text positions in all (the picture's and the answer's among them), answer, patches."""

    positions: int
    answer: int
    patches: int = 0


@dataclass(frozen=True)
class Pass:
    """Equal passes.

    Attributes:
        count: how many.
        rows: questions x copies that go through at once.
        positions: text positions a row.
        patches: vision patches a row; 0 without a picture.
        columns: positions a row for which words are predicted.
        until: language layers that are run; None for all.
        text_from: first language layer of the graph of gradients; None without a backward pass.
        vision_from: first vision block of the graph; None if the tower is outside it.
        copies: how often each question is among the rows.
        gated: layers of the located branch that are gated.
        by_position: layers whose integrals are kept for each position and not for each neuron.
        trained: whether path neurons have weights of their own that take gradients.
        context: positions in the cache of keys and values (generating).
        entry: layer of the located branch at whose last linear layer the pass begins; None: at the beginning.
        stop: whether it ends at the last linear layer of the layer after that.
        narrow: whether the last language layer's network and the head work before answer tokens only.
        kept: grid points at which entries are kept beside the pass.
        unscaled: layers whose gradients in the unscaled model are kept beside the pass.
    """

    count: int
    rows: int
    positions: int
    patches: int = 0
    columns: int = 1
    until: int | None = None
    text_from: int | None = None
    vision_from: int | None = None
    copies: int = 1
    gated: int = 0
    by_position: int = 0
    trained: bool = False
    context: int = 0
    entry: int | None = None
    stop: bool = False
    narrow: bool = False
    kept: int = 0
    unscaled: int = 0

    @property
    def backward(self) -> bool:
        """Whether gradients are taken."""
        return self.text_from is not None


def totals(passes: list[Pass]) -> tuple[int, int]:
    """Numbers of forward and of backward passes."""
    return sum(one.count for one in passes), sum(one.count for one in passes if one.backward)


def portions(total: int, size: int) -> dict[int, int]:
    """How `total` falls into portions of at most `size`: size of a portion -> how many."""
    return dict(Counter([size] * (total // size) + [total % size] * (total % size > 0)))


class Visited(NamedTuple):
    """A set's batches of one modality, as editing goes through them round after round.

    Attributes:
        rows: questions a batch.
        there: questions in all its batches; 0 if the set has none of the modality.
        pictured: 0 or 1, whether with pictures.
        answered: whether answers are learned (L_CE): the whole model runs, else only up to the steered layer.
    """

    rows: int
    there: int
    pictured: int = 0
    answered: bool = False

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return math.ceil(self.there / self.rows) if self.there else 0


@dataclass(frozen=True)
class Editing:
    """Edits of one model on the same batches, one after the other.

    Attributes:
        n_steps: training steps of an edit.
        layer_index: language layer that is steered.
        visited: what every step takes a batch of.
        vision: whether the vision branch has neurons to train.
        n_edits: how many; batches' vanilla states are made once for all of them.
        last: whether no language layer comes after the steered one.
    """

    n_steps: int
    layer_index: int
    visited: tuple[Visited, ...]
    vision: bool = True
    n_edits: int = 1
    last: bool = False


def editing(edit: Editing, questions: tuple[Question, Question]) -> list[Pass]:
    """Passes of `editing.edit`, of a text and an image question's sizes: one a modality and place that a pass ends at."""
    steps, stop = edit.n_steps * edit.n_edits, {"until": edit.layer_index + 1, "columns": 0}
    visited = [one for one in edit.visited if one.there]
    together: dict[tuple[int, bool], list[Visited]] = {}
    for one in visited:
        together.setdefault((one.pictured, edit.last or one.answered), []).append(one)
    found = [
        Pass(min(one.batches, steps), min(one.rows, one.there), **_sizes(questions[one.pictured]), **stop)
        for one in visited
    ]
    for (pictured, _), group in together.items():
        graph = {"text_from": 0, "vision_from": 0 if pictured and edit.vision else None, "trained": True}
        answered = any(one.answered for one in group)
        ends = {"columns": questions[pictured].answer} if answered else stop
        rows = sum(min(one.rows, one.there) for one in group)
        found.append(Pass(steps, rows, **_sizes(questions[pictured]), **ends, **graph))
    return found


def _sizes(question: Question) -> dict[str, int]:
    return {"positions": question.positions, "patches": question.patches}


def evaluating(
    questions: tuple[Question, Question], n_questions: tuple[int, int], batch_size: int, max_new_tokens: int
) -> list[Pass]:
    """The most passes that one model's answers take (`generation.generate`): every answer is cut off.

    What prompts share is gone through first: once for all text questions, and, were no picture shown twice, once for
    every batch of questions with pictures.
    """
    found = []
    for question, number in zip(questions, n_questions, strict=True):
        prompt = question.positions - question.answer
        if number and not question.patches:
            found.append(Pass(1, 1, prompt, context=prompt))
        for rows, times in portions(number, batch_size).items():
            longest = prompt + max_new_tokens
            if question.patches:
                found.append(Pass(times, rows, prompt, question.patches, context=prompt))
            found.append(Pass(times, rows, prompt, question.patches, context=longest))
            if max_new_tokens > 1:
                found.append(Pass(times * (max_new_tokens - 1), rows, 1, context=longest))
    return found
