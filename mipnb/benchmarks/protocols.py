"""What is said to the model: prompts by protocol, and solved examples before them.

`pocket`: the question and its options, nothing else. `benchmark`: the benchmark's own instructions (MLLMU-Bench's for letters,
blanks and sentences; CLEAR's captions as they are). `paper`: the same words, and of the tasks only those of the paper's
tables (no blanks). How answers are marked under each is in `mipnb.metrics`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from string import ascii_uppercase
from typing import Any

from mipnb.benchmarks.questions import CHOICE_TASKS, Question, choice_prompt

PROTOCOLS = ("pocket", "benchmark", "paper")
PAPER_TASKS = ("VQA", "QA", "VGEN", "GEN")
#: MLLMU-Bench's instructions, word for word, since they are the measurement
LETTER = "Just give ONE letter representing the answer directly."
BLANK = "Please **ONLY** provide the correct answer that should replace the [Blank]."
SENTENCE = "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH."


def under_protocol(questions: Iterable[Question], protocol: str, kind: str) -> list[Question]:
    """The questions as a protocol asks them.

    Args:
        questions: as a benchmark's reader makes them.
        protocol: pocket (unchanged), benchmark or paper.
        kind: mllmu, clear or custom.

    Raises:
        ValueError: no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    if protocol == "pocket":
        return list(questions)
    wanted = [question for question in questions if protocol == "benchmark" or question.task in PAPER_TASKS]
    return [replace(question, prompt=_worded(question, kind)) for question in wanted]


def _worded(question: Question, kind: str) -> str:
    if question.task in CHOICE_TASKS:
        mark = "." if kind == "clear" else ":"
        return f"{choice_prompt(_stem(question), question.options, mark)}\n{LETTER}"
    if question.task.startswith("CLOZE"):
        return f"{question.prompt}\n{BLANK}"
    return question.prompt if kind == "clear" else f"{question.prompt}\n{SENTENCE}"


def _stem(question: Question) -> str:
    """A question with options, without them."""
    return question.prompt.removesuffix(choice_prompt("", question.options))


def with_shots(
    questions: Iterable[Question], examples: Iterable[Question], n_shots: int, protocol: str, seed: int
) -> list[Question]:
    """The questions, each after `n_shots` solved ones of its task; the same ones for the whole task.

    Args:
        questions: to be asked.
        examples: of people who are not asked, under the same protocol.
        n_shots: how many.
        protocol: outside `pocket` an example with options is solved by its letter.
        seed: of the draw.

    Raises:
        ValueError: fewer examples than `n_shots` for a task. A task of which there is none at all (CLEAR's questions about
            the real world) is asked without, with a warning.
    """
    questions, spare = list(questions), {}
    for example in examples:
        spare.setdefault(example.task, []).append(_solved(example, protocol))
    shots = {
        task: tuple(Random(f"{seed} {task} shots").sample(_enough(spare, task, n_shots), n_shots))
        for task in dict.fromkeys(question.task for question in questions)
        if _has_examples(spare, task)
    }
    return [replace(question, shots=shots.get(question.task, ())) for question in questions]


def _has_examples(spare: Mapping[str, list[Question]], task: str) -> bool:
    if spare and task not in spare:
        warnings.warn(
            f"no retain person answers questions of task {task}: they are asked without examples",
            stacklevel=3,
        )
    return task in spare or not spare


def _enough(spare: Mapping[str, list[Question]], task: str, n_shots: int) -> list[Question]:
    found = spare.get(task, [])
    if len(found) < n_shots:
        raise ValueError(
            f"n_shots = {n_shots}: {len(found)} questions of task {task} are left to show as examples, of retain people who "
            "are not asked; lower n_shots or n_eval_retain"
        )
    return found


def _solved(example: Question, protocol: str) -> Question:
    if protocol == "pocket" or example.task not in CHOICE_TASKS:
        return example
    return replace(example, answer=ascii_uppercase[example.options.index(example.answer)])


def chat(question: Question) -> tuple[list[dict[str, Any]], list[bytes]]:
    """A question as a chat: each shot a turn of the user and one of the assistant, then the question.

    Returns:
        The turns as a chat template takes them, and the encoded pictures in the order of their places.
    """
    turns: Sequence[Question] = (*question.shots, question)
    chats = []
    for turn in turns:
        place = [] if turn.image is None else [{"type": "image"}]
        chats.append({"role": "user", "content": [*place, {"type": "text", "text": turn.prompt}]})
        chats.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return chats[:-1], [turn.image for turn in turns if turn.image is not None]
