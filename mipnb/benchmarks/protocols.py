"""What is said to the model: prompts by protocol, and solved examples before them.

`pocket`: the question and its options, nothing else. `benchmark`: the benchmark's own instructions (MLLMU-Bench's for letters,
blanks and sentences; CLEAR's captions as they are). `paper`: the same words, and of the tasks only those of the paper's
tables (no blanks). How answers are marked under each is in `mipnb.metrics`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
    is_asked = asks(protocol)
    wanted = [question for question in questions if is_asked(question.task)]
    return [replace(question, prompt=_worded(question, kind)) for question in wanted]


def asks(protocol: str) -> Callable[[str], bool]:
    """Tells of a task whether a protocol asks it."""
    return lambda task: protocol != "paper" or task in PAPER_TASKS


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
    questions: Iterable[Question],
    examples: Iterable[Question],
    n_shots: int,
    protocol: str,
    seed: int,
    bare: Collection[str] = (),
) -> list[Question]:
    """The questions, each after `n_shots` solved ones of its task; the same ones for the whole task.

    Args:
        questions: to be asked.
        examples: of people who are not asked, under the same protocol.
        n_shots: how many.
        protocol: outside `pocket` an example with options is solved by its letter.
        seed: of the draw.
        bare: tasks that are asked without examples, since there are none; see `without_examples`.

    Raises:
        ValueError: fewer examples than `n_shots` for a task that is not among `bare`.
    """
    questions, spare = list(questions), {}
    for example in examples:
        spare.setdefault(example.task, []).append(_solved(example, protocol))
    shots = {
        task: tuple(Random(f"{seed} {task} shots").sample(_enough(spare, task, n_shots), n_shots))
        for task in dict.fromkeys(question.task for question in questions)
        if task not in bare
    }
    return [replace(question, shots=shots.get(question.task, ())) for question in questions]


def without_examples(asked: Iterable[Question], known: Iterable[Question], n_shots: int) -> list[str]:
    """The tasks that no retain person is asked, so that nobody could show them solved; a warning names them.

    Args:
        asked: all questions of an evaluation.
        known: those of all retain people, whether they are asked or not.
        n_shots: how many examples were wanted, for the warning.
    """
    shown = {question.task for question in known}
    bare = sorted({question.task for question in asked} - shown)
    if bare:
        told = f"n_shots = {n_shots}: no retain person is asked {', '.join(bare)}: asked without examples"
        warnings.warn(told, RuntimeWarning, stacklevel=3)
    return bare


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
