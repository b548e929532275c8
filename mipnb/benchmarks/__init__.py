"""Benchmarks as people and questions: MLLMU-Bench and the pocket one, CLEAR, or a user's own folder.

What lies in the folder says which of them it is, so that nothing downstream has to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from mipnb.artefacts import under_root
from mipnb.benchmarks import clear, custom, mllmu
from mipnb.benchmarks.hub import benchmark_folder, benchmark_name
from mipnb.benchmarks.protocols import PROTOCOLS, under_protocol, with_shots, without_examples
from mipnb.benchmarks.questions import (
    LETTERS,
    TASKS,
    Person,
    Question,
    choice_prompt,
    draw_questions,
    names_of,
)
from mipnb.benchmarks.tables import configurations, names

__all__ = [
    "KINDS", "LAYOUTS", "LETTERS", "PROTOCOLS", "TASKS", "Person", "Question", "benchmark_folder", "benchmark_kind",
    "benchmark_name", "check_shots", "choice_prompt", "described", "draw_questions", "evaluation_questions", "forget_ids",
    "forget_ratios", "has_split", "load_people", "load_training", "names_of", "reader_of", "retain_ids",
]  # fmt: skip

KINDS: dict[str, ModuleType] = {"mllmu": mllmu, "clear": clear, "custom": custom}


#: what tells each kind's folder
LAYOUTS = {
    "mllmu": "MLLMU-Bench's folders (Full_Set, forget_5, ...)",
    "clear": "CLEAR's (full, forget05+tofu, ...)",
    "custom": f"a table {' or '.join(custom.TABLES)}",
}
_SHOWN = 8


def benchmark_kind(root: str | Path) -> str:
    """mllmu, clear or custom, by what lies in the folder; mllmu if nothing tells."""
    if custom.table_of(root) is not None:
        return "custom"
    found = configurations(root)
    is_clear = any(name == "full" or name.endswith(("+tofu", "_perturbed")) for name in found)
    return "clear" if is_clear else "mllmu"


def described(root: str | Path) -> str:
    """What a folder looks like, and what was found in it; for messages."""
    kind, found = benchmark_kind(root), names(root)
    if kind == "custom":
        return f"custom: it has {custom.table_of(root).name}"
    known = kind == "clear" or mllmu.ratios(root) or mllmu.has(root, "Full_Set")
    more = ", ..." if len(found) > _SHOWN else ""
    return f"{kind if known else 'no benchmark'}: it has {', '.join(found[:_SHOWN]) or 'nothing'}{more}"


def reader_of(root: str | Path) -> ModuleType:
    """The module that reads the folder: ratios, pairs, needed, ids, has, people, training, evaluation, inspect; and the names
    of configurations WHERE_THERE, OTHERS, AGAIN."""
    return KINDS[benchmark_kind(root)]


def load_people(root: str | Path, split: str, seed: int = 42) -> list[Person]:
    """The people of a configuration such as forget_5, Full_Set, Test_Set or Retain_Set.

    Every picture of a row (Test_Set may have several) asks every image question. CLEAR's and a user's own sets answer to
    these names, too; `seed` draws CLEAR's prompts and places the gold option.

    Raises:
        FileNotFoundError: there is no such configuration.
        ValueError: a row lacks a field; the message gives file, ID and field.
    """
    return reader_of(root).people(root, split, seed)


def has_split(root: str | Path, split: str) -> bool:
    """Whether the benchmark has people of a configuration by that name (Test_Set, Holdout_Set, ...)."""
    return reader_of(root).has(root, split)


def load_training(
    root: str | Path, split: str = "ft_Data", ids: Iterable[str] | None = None, seed: int = 42
) -> list[Question]:
    """Fine-tuning questions (task FT), of some people or of all, in the file's order.

    A row without a picture holds text-only questions. `ids` given: only these people; ValueError if one is missing.
    """
    wanted = None if ids is None else set(ids)
    found = list(reader_of(root).training(root, split, wanted, seed))
    if wanted is not None and (missing := wanted - {question.person_id for question in found}):
        raise ValueError(f"{under_root(root) / split} has no training rows for {sorted(missing)}")
    return found


def forget_ratios(root: str | Path) -> list[int]:
    """The forget ratios that the benchmark has, in percent, ascending."""
    return reader_of(root).ratios(root)


def forget_ids(root: str | Path, ratio: int) -> list[str]:
    """IDs of the people to forget at a ratio in percent (configuration forget_<ratio>)."""
    return reader_of(root).ids(root, ratio, forget=True)


def retain_ids(root: str | Path, ratio: int) -> list[str]:
    """IDs of the people to keep at a forget ratio in percent (configuration retain_<100 - ratio>)."""
    return reader_of(root).ids(root, ratio, forget=False)


def evaluation_questions(
    root: str | Path, ratio: int, n_retain: int, seed: int, protocol: str = "pocket", n_shots: int = 0
) -> dict[str, list[Question]]:
    """What an evaluation asks, by split.

    Args:
        root: the benchmark.
        ratio: forget ratio, percent; all forget people are asked.
        n_retain: how many retain people are asked, drawn by `seed`; at most all of them.
        seed: of every draw.
        protocol: how it is asked, see `mipnb.benchmarks.protocols`.
        n_shots: solved questions shown before each one, of retain people who are not asked. A task that no retain person
            is asked at all (CLEAR's questions about the real world) is asked without; a warning says so.

    Returns:
        forget, retain: training views and phrasings; test_forget, test_retain: the same people in Test_Set (other views
        and phrasings); celebrity (Retain_Set, real_faces), real_world and holdout (Holdout_Set): where the benchmark has
        them.

    Raises:
        ValueError: for a task, fewer than `n_shots` questions of retain people who are not asked.
    """
    kind = benchmark_kind(root)
    groups = KINDS[kind].evaluation(root, ratio, n_retain, seed)
    asked = {
        split: under_protocol((question for person in group for question in person.questions), protocol, kind)
        for split, group in groups.items()
    }
    if not n_shots:
        return asked
    busy = {person.person_id for person in groups["retain"]}
    everybody = KINDS[kind].evaluation(root, ratio, len(retain_ids(root, ratio)), seed)["retain"]
    known = under_protocol((q for person in everybody for q in person.questions), protocol, kind)
    bare = without_examples((q for group in asked.values() for q in group), known, n_shots)
    how = [q for q in known if q.person_id not in busy], n_shots, protocol, seed, bare
    return {split: with_shots(group, *how) for split, group in asked.items()}


def check_shots(
    root: str | Path, ratio: int, n_retain: int, seed: int, protocol: str = "pocket", n_shots: int = 0
) -> None:
    """Whether there are examples to show; IDs alone are read where they tell. Arguments as `evaluation_questions`.

    Raises:
        ValueError: everybody to keep is asked, or a task has too few examples.
    """
    people = len(retain_ids(root, ratio)) if n_shots else 0
    if n_shots and n_retain >= people:
        raise ValueError(
            f"n_shots = {n_shots}: examples are of people to keep who are not asked, and n_eval_retain = {n_retain} asks all "
            f"{people} of them; lower n_eval_retain (by one person at least), or set n_shots to 0"
        )
    if n_shots:
        evaluation_questions(root, ratio, n_retain, seed, protocol, n_shots)
