"""The planner's figures beside what a few questions really take here: passes, live memory, time.

Sizes of questions are those of the very batches that are run, so that the formulas are compared and not the guesses
about a benchmark. On a CPU; editing in the model's own type, as on a GPU (`precision` casts on some processors).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from unittest.mock import patch

import torch
from torch import nn

from mipnb import models, passes
from mipnb.attribution import attribute
from mipnb.batches import IGNORED, Batch, encode
from mipnb.benchmarks import draw_questions, forget_ids, load_training, retain_ids
from mipnb.costs import FLOAT32, Costs
from mipnb.editing import edit
from mipnb.generation import generate
from mipnb.locating import PAIRS, of_modality
from mipnb.measuring import Counted, LiveMemory, counted_passes, seconds_of
from mipnb.params import Params
from mipnb.passes import Editing, Pass, Question, Visited, totals
from mipnb.paths import NeuronPath
from mipnb.rmisu import EditConfig, training_batches, unanswered
from mipnb.search_passes import Search, locating
from mipnb.shapes import Shape, find_config, read_shape
from mipnb.workload import MODALITIES

#: searches and scores that are compared
SEARCHED = (*product(("greedy", "one_pass"), ("complete", "joint")), ("shortlist", "complete"))


@dataclass(frozen=True)
class Compared:
    """One step, planned and measured.

    Attributes:
        name: what was run.
        planned, counted: forward and backward passes.
        planned_bytes, peak_bytes: memory beside the model's weights.
        flops: planned operations.
        seconds: measured, without anything that counts.
    """

    name: str
    planned: tuple[int, int]
    counted: tuple[int, int]
    planned_bytes: int
    peak_bytes: int
    flops: float
    seconds: float


def rate(found: Sequence[Compared]) -> float:
    """Operations a second over all steps."""
    return sum(one.flops for one in found) / sum(one.seconds for one in found)


def question_of(batches: Sequence[Batch]) -> Question:
    """The sizes that a plan charges batches with: the longest's positions, answer columns, patches a picture."""
    positions = max(batch["input_ids"].shape[1] for batch in batches)
    columns = max(_columns(batch) for batch in batches)
    return Question(positions, columns, max(_patches(batch) for batch in batches))


def _columns(batch: Batch) -> int:
    """Positions that some sample's answer is predicted at, and the one more that is scored beside them."""
    return int((batch["labels"][:, 1:] != IGNORED).any(0).sum()) + 1 if "labels" in batch else 1


def _patches(batch: Batch) -> int:
    return len(batch["pixel_values"]) // len(batch["input_ids"]) if "pixel_values" in batch else 0


def run_counted(
    name: str,
    model: nn.Module,
    work: Callable[[], object],
    parts: Sequence[tuple[Costs, list[Pass]]],
    beside: int = 0,
    before: int = 0,
) -> Compared:
    """Runs some work twice, once counted and once timed, and sets it beside its plan.

    Args:
        name: of the work.
        model: whose passes are counted.
        work: what is run.
        parts: the plan, passes with what they cost.
        beside: planned bytes beside those of passes.
        before: measured bytes that were there before the work began.
    """
    with counted_passes(model) as counted, LiveMemory(model) as memory:
        work()
    seconds = seconds_of(work)
    found = [(costs, one) for costs, part in parts for one in part]
    return Compared(
        name,
        totals([one for _, one in found]),
        _pair(counted),
        beside + max(costs.peak(one) for costs, one in found),
        before + memory.peak,
        sum(costs.flops(one) for costs, one in found),
        seconds,
    )


def _pair(counted: Counted) -> tuple[int, int]:
    return counted.forward, counted.backward


def compare_locating(
    model: nn.Module,
    shape: Shape,
    batch: Batch,
    branch: str,
    search: str,
    score: str,
    n_steps: int = 4,
    rule: str = "right",
) -> Compared:
    """`attribution.attribute` on one batch, without the completeness gap, as notebook 02 calls it."""
    tower, rows = getattr(shape, branch), len(batch["input_ids"])
    plan = Search(branch, tower.layers, tower.neurons, search, n_steps, score == "joint", rule=rule)
    answer = int(
        (batch["labels"][:, 1:] != IGNORED).sum(1).max()
    )  # words are predicted before own answers only
    found = locating(plan, question_of([batch])._replace(answer=answer), rows, rows)

    def work() -> None:
        choices = {"search": search, "score": score, "n_steps": n_steps, "rule": rule, "completeness": False}
        attribute(model, batch, branch, fingerprint="", **choices)

    # whether passes can begin in the middle is tried once a model and branch, whatever the search
    attribute(model, batch, branch, fingerprint="", search="gradient", completeness=False)
    costs = Costs(shape, branch, _bytes(model), arithmetic=FLOAT32)
    return run_counted(f"{branch}, {search}, {score}", model, work, [(costs, found)])


def _bytes(model: nn.Module) -> int:
    return next(model.parameters()).element_size()


def compare_editing(
    model: nn.Module,
    shape: Shape,
    batches: tuple[Sequence[Batch], Sequence[Batch]],
    plan: Editing,
    path: tuple[int, int],
) -> Compared:
    """`editing.edit` on encoded batches of the forget and the retain set, on paths of so many neurons a layer."""
    every = [*batches[0], *batches[1]]
    text, pictured = (
        [batch for batch in every if ("pixel_values" in batch) == kind] for kind in (False, True)
    )
    questions = (question_of(text), question_of(pictured))
    costs = Costs(shape, "text", _bytes(model), path)
    before = sum(tensor.nbytes for batch in every for name, tensor in batch.items() if name == "pixel_values")
    config = EditConfig(layer_index=plan.layer_index, n_steps=plan.n_steps)

    def work() -> None:
        edit(model, _first_neurons(model, path), *batches, config)

    with patch("mipnb.losses.mixed_precision", nullcontext):
        beside = costs.optimiser() + costs.prepared(plan, questions)
        return run_counted("editing", model, work, [(costs, passes.editing(plan, questions))], beside, before)


def _first_neurons(model: nn.Module, path: tuple[int, int]) -> list[NeuronPath]:
    """Paths of the first so many neurons of every layer."""
    fingerprint, paths = models.fingerprint(model), []
    for branch, k in zip(models.BRANCHES, path, strict=True):
        networks = models.ffns(model, branch)
        layers = tuple(tuple(range(k)) for _ in networks)
        paths.append(NeuronPath(branch, layers, networks[0].n_neurons, fingerprint))
    return paths


def compare(params: Params, n_questions: int = 16, n_steps: int = 4) -> list[Compared]:
    """Every step on a few training questions of a run's model and benchmark, which have to be on this machine."""
    torch.manual_seed(params.seed)
    model = models.load_model(params.model_dir, params.dtype)
    processor = models.load_processor(params.model_dir)
    shape = read_shape(*find_config(params.model_dir))
    groups = [
        draw_questions(load_training(params.benchmark_dir, ids=ids), n_questions, params.seed)
        for ids in (ids_of(params.benchmark_dir, params.forget_ratio) for ids_of in (forget_ids, retain_ids))
    ]
    return [
        *_locatings(model, processor, shape, groups[0], n_steps),
        _edit(model, processor, shape, groups, params.layer_index),
        *_evaluations(model, processor, shape, groups[0]),
    ]


def _locatings(
    model: nn.Module, processor, shape: Shape, questions: Sequence, n_steps: int
) -> Iterator[Compared]:
    kinds = dict.fromkeys((PAIRS["text"], PAIRS["vision"]))
    for (branch, modality), (search, score) in product(kinds, SEARCHED):
        batch = encode(processor, of_modality(questions, modality))
        yield compare_locating(model, shape, batch, branch, search, score, n_steps)


def _edit(model: nn.Module, processor, shape: Shape, groups: Sequence, layer_index: int) -> Compared:
    size, n_steps = 8, 3
    forget, retain = (training_batches(processor, group, size, n_steps, 0) for group in groups)
    renamed, mixed = of_modality(groups[0], "text"), of_modality(groups[1], "image_text")
    near = unanswered(training_batches(processor, [*renamed, *mixed], size, n_steps, 0))
    visited = [
        Visited(size // (1 + pictured), len(of_modality(group, kind)), pictured, answered=group is groups[1])
        for group in groups
        for pictured, kind in enumerate(MODALITIES)
    ]
    neighbours = visited[0], visited[3]._replace(answered=False)  # of texts to forget, of pictures to keep
    last = layer_index == shape.text.layers - 1
    plan = Editing(n_steps, layer_index, (*visited, *neighbours), last=last)
    return compare_editing(model, shape, (forget, [*retain, *near]), plan, (48, 24))


def _evaluations(model: nn.Module, processor, shape: Shape, questions: Sequence) -> Iterator[Compared]:
    for modality in MODALITIES:
        asked = of_modality(questions, modality)
        yield compare_evaluating(model, processor, shape, asked, batch_size=8, max_new_tokens=3)


def compare_evaluating(
    model: nn.Module, processor, shape: Shape, asked: Sequence, batch_size: int, max_new_tokens: int
) -> Compared:
    """`generation.generate` on questions of one modality; no answer may be shorter than `max_new_tokens`."""
    whole = encode(processor, asked, with_answer=False)
    prompt = question_of([whole])._replace(answer=0)
    found = passes.evaluating((prompt,), (len(asked),), batch_size, max_new_tokens)

    def work() -> None:
        generate(model, processor, asked, batch_size, max_new_tokens)

    return run_counted(
        f"evaluating, {asked[0].modality}", model, work, [(Costs(shape, "text", _bytes(model)), found)]
    )
