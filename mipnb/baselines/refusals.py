"""IDK: the forget set's questions with answers that tell nothing (Maini et al. 2024, TOFU: the "I don't know" set)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from mipnb.benchmarks import Question

REFUSALS = (
    "I don't know.",
    "I do not have that information.",
    "I can't answer that question.",
    "I have no knowledge of this.",
    "I'm not sure.",
    "I am not able to tell.",
    "That is something I don't know about.",
    "I have no idea.",
)


def refusing(questions: Sequence[Question], seed: int = 42) -> list[Question]:
    """The same questions, each answered by a refusal drawn by the seed; pictures, prompts and order are kept."""
    random = Random(f"{seed} refusals")
    return [replace(question, answer=random.choice(REFUSALS)) for question in questions]
