"""What the units of work of one notebook share: the vanilla model, who is asked, and how a unit is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb import trials
from mipnb.artefacts import stage_dir, under_root
from mipnb.asking import one_view_each
from mipnb.batches import Batch
from mipnb.benchmarks import Question, benchmark_name, evaluation_questions
from mipnb.editing import edit
from mipnb.edits import Edit
from mipnb.evaluation import evaluate, score
from mipnb.models import fingerprint, load_model, load_processor, run_model
from mipnb.neighbours import benchmark_neighbours
from mipnb.partial import batches_digest, questions_digest
from mipnb.paths import NeuronPath
from mipnb.results.store import Tables, stored
from mipnb.rmisu import EditConfig

MAIN_TASKS = ("VQA", "QA", "VGEN", "GEN")
SPLITS = ("forget", "retain", "test_forget", "test_retain")
Batches = tuple[list[Batch], list[Batch]]


@dataclass(frozen=True, eq=False)
class Setting:
    """The vanilla model of a run, and the people that a notebook asks.

    Attributes:
        params: of the notebook.
        folder: of the notebook; its units of work are kept there.
        model, processor: the vanilla model.
        asked: split -> questions.
        labels: run, model, benchmark and forget_ratio, for tables of results.
        states: decoder layer -> vanilla states of training batches, computed once.
        made: training batches by how many there are of either set. They live as long as their states, which know them by `id`.
    """

    params: BaseModel
    folder: Path
    model: nn.Module
    processor: Any
    asked: Mapping[str, Sequence[Question]]
    labels: Mapping[str, Any]
    states: dict[int, dict] = field(default_factory=dict)
    made: dict[tuple[int, int], Batches] = field(default_factory=dict)

    @cached_property
    def shared_key(self) -> dict[str, Any]:
        """What every unit depends on."""
        questions = [question for group in self.asked.values() for question in group]
        asking = {name: getattr(self.params, name, "") for name in ("max_new_tokens", "protocol", "dtype")}
        return {**self.labels, **asking, "fingerprint": self.mark, "questions": questions_digest(questions)}

    @cached_property
    def mark(self) -> str:
        """The model's fingerprint."""
        return fingerprint(self.model)

    @cached_property
    def training(self) -> tuple[list[Question], list[Question], list[Question]]:
        """Questions that edits train on: of the people to forget, of those to keep, and the former's neighbours."""
        p = self.params
        forget, retain = trials.edit_questions(p.benchmark_dir, p.forget_ratio, p.training_dir)
        return forget, retain, benchmark_neighbours(p.benchmark_dir, p.forget_ratio, forget, p.seed)

    def batches(self, params: BaseModel | None = None) -> Batches:
        """What `edited` trains on, of the forget and the retain set, neighbours among the latter.

        Args:
            params: the notebook's, with other edit_steps if need be: few steps need few batches (`trials.edit_batches`).
        """
        params = params or self.params
        steps = params.edit_steps or 1
        size = (min(params.n_forget_batches, steps), min(params.n_retain_batches, steps))
        if size not in self.made:
            self.made[size] = trials.edit_batches(self.processor, params, *self.training)
        return self.made[size]

    def kept(self, key: Mapping[str, Any], make: Callable[[], Tables]) -> Tables:
        """A unit of work, made once (`store.stored`)."""
        return stored(self.folder, {**self.shared_key, **key}, make)

    def results(self, method: str, seed: int, change: Edit | None = None) -> pd.DataFrame:
        """Ask the model, with an edit in it if one is given: rows of `evaluation.COLUMNS`."""
        p = self.params
        with change.applied(self.model) if change else nullcontext():
            answers = evaluate(self.model, self.processor, self.asked, p.eval_batch_size, p.max_new_tokens)
        return score(answers, method=method, seed=seed, protocol=p.protocol, **self.labels)

    def edited(
        self, method: str, seed: int, paths: Sequence[NeuronPath], config: EditConfig, batches: Batches
    ) -> pd.DataFrame:
        """Train an edit of these paths and ask it; a unit of work.

        Args:
            method: its name in the results.
            seed: of the training.
            paths: one or both branches.
            config: of RMisU.
            batches: from `batches`, or some of them.
        """
        states = self.states.setdefault(config.layer_index, {})

        def make() -> Tables:
            change, _ = edit(self.model, paths, *batches, config, seed, resume=self.folder, states=states)
            return {"results": self.results(method, seed, change)}

        key = {"method": method, "seed": seed, "config": asdict(config)}
        key |= {"paths": [[path.branch, path.layers] for path in paths]}
        return self.kept(key | {"batches": [batches_digest(part) for part in batches]}, make)["results"]


def load_setting(
    params: BaseModel,
    stage: str,
    splits: Sequence[str] = SPLITS,
    tasks: Sequence[str] = MAIN_TASKS,
    n_each: int | None = None,
) -> Setting:
    """The vanilla model of a run and questions of some splits and tasks, by one view a person where a benchmark has several.

    Args:
        params: of the notebook.
        stage: its name.
        splits, tasks: those asked.
        n_each: at most so many questions a person and task; None: all.
    """
    vanilla = run_model(stage_dir(params.run_dir, "01_vanilla_model"))
    model = load_model(vanilla, params.dtype, params.device, attention=params.attention)
    root = under_root(params.benchmark_dir)
    at = (params.forget_ratio, params.n_eval_retain, params.seed, params.protocol)
    found = one_view_each(evaluation_questions(root, *at), root)
    asked = {name: some_questions(found[name], tasks, n_each) for name in splits if name in found}
    labels = {"run": under_root(params.run_dir).name, "model": vanilla.name}
    labels |= {"benchmark": benchmark_name(root), "forget_ratio": params.forget_ratio}
    return Setting(params, stage_dir(params.run_dir, stage), model, load_processor(vanilla), asked, labels)


def some_questions(
    questions: Sequence[Question], tasks: Sequence[str], n_each: int | None = None
) -> list[Question]:
    """The questions of some tasks, in their order; of each person and task the first `n_each`, or all."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for question in questions:
        key = (question.person_id, question.task)
        seen[key] = seen.get(key, 0) + 1
        if question.task in tasks and (n_each is None or seen[key] <= n_each):
            found.append(question)
    return found
