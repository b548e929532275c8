"""All methods at one forget ratio: the same sets to train on, the same questions asked; one unit of work a method and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from torch import nn

from mipnb import trials
from mipnb.artefacts import atomic_path, sha256, under_root
from mipnb.asking import one_view_each
from mipnb.benchmarks import Question, benchmark_name, evaluation_questions
from mipnb.editing import edit
from mipnb.edits import Edit
from mipnb.evaluation import evaluate, score
from mipnb.models import fingerprint, load_model
from mipnb.neighbours import benchmark_neighbours
from mipnb.partial import questions_digest
from mipnb.pocket.validation import ValidationSets
from mipnb.results.movement import frequent_words, movement
from mipnb.results.store import Tables, stored
from mipnb.results.unlearners import TrainingSets, settings_of, training_sets, unlearn
from mipnb.validation import located_paths

TASKS = ("VQA", "QA", "VGEN", "GEN")
SPLITS = ("forget", "retain", "test_forget", "test_retain", "celebrity")
#: at most so many questions a person and task are looked at closely (`movement`)
CLOSELY = 4
#: tables of a unit that are put together from all units
TABLES = ("results", "history", "residuals", "logits")
_LOCATING = (
    "score", "search", "rule", "n_steps", "ranking", "aggregate", "text_top_k", "vision_top_k", "vision_kind",
    "n_locate_forget", "n_locate_retain", "neighbour_batch",
)  # fmt: skip
_COMMON = (
    "benchmark_dir", "protocol", "dtype", "max_new_tokens", "forget_batch", "retain_batch", "n_forget_batches",
    "n_retain_batches", "edit_steps",
)  # fmt: skip
#: what makes an unlearned model: an edit of the vanilla model, or another model; None: vanilla itself
Made = tuple[Edit | nn.Module | None, pd.DataFrame | None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One forget ratio of a run.

    Attributes:
        params: of notebook 06.
        folder: of notebook 06; units of work and edits are kept there.
        model, processor: the vanilla model.
        ratio: percent of the people that are forgotten.
        name: the vanilla model's name, for the table of results.
    """

    params: BaseModel
    folder: Path
    model: nn.Module
    processor: Any
    ratio: int
    name: str

    @cached_property
    def questions(self) -> tuple[list[Question], list[Question]]:
        """Training questions: of the people to forget, and to keep."""
        return trials.edit_questions(self.params.benchmark_dir, self.ratio, self.params.training_dir)

    @cached_property
    def effort(self) -> BaseModel:
        """The parameters with as many steps and forget batches a person as at the run's own ratio, for every method."""
        p, more = self.params, self.ratio / self.params.forget_ratio
        batches = max(1, round(more * p.n_forget_batches))
        return p.model_copy(update={"edit_steps": round(more * p.edit_steps), "n_forget_batches": batches})

    @cached_property
    def training(self) -> TrainingSets:
        """What the baselines train on."""
        return training_sets(self.processor, self.effort, *self.questions)

    def forget_training(self) -> None:
        """Let go of what baselines train on, which takes most of the memory; it is made again when it is needed."""
        self.__dict__.pop("training", None)

    @cached_property
    def asked(self) -> dict[str, list[Question]]:
        """What notebook 05 asks, without blanks and strangers: split -> questions."""
        p = self.params
        at = (under_root(p.benchmark_dir), self.ratio, p.n_eval_retain, p.seed, p.protocol)
        found = one_view_each(evaluation_questions(*at), p.benchmark_dir)
        return {split: [q for q in found[split] if q.task in TASKS] for split in SPLITS if split in found}

    @cached_property
    def closely(self) -> dict[str, list[Question]]:
        """The questions that the models are looked at closely with: forget and retain."""
        return {split: first_of_each(self.asked[split], CLOSELY) for split in ("forget", "retain")}

    @cached_property
    def key(self) -> dict[str, Any]:
        """What every unit depends on."""
        p, groups = self.effort, (*self.asked.values(), *self.questions)
        digest = questions_digest([question for group in groups for question in group])
        common = {name: getattr(p, name) for name in _COMMON}
        common |= {"run": under_root(p.run_dir).name, "people_seed": p.seed}
        return common | {"ratio": self.ratio, "fingerprint": fingerprint(self.model), "questions": digest}

    def unit(
        self, method: str, seed: int, key: Mapping[str, Any], make: Callable[[], Made], closely: bool = False
    ) -> Tables:
        """A method made and asked, once (`store.stored`).

        Args:
            method, seed: as the results have them.
            key: what it depends on beside `key`.
            make: trains; returns edit or model, and history.
            closely: also residuals and logits, and the edit is kept in `edits/`.
        """
        whole = {**self.key, "method": method, "seed": seed, "closely": closely, **key}
        return stored(self.folder, whole, lambda: self._tables(method, seed, *make(), closely))

    def _tables(
        self,
        method: str,
        seed: int,
        made: Edit | nn.Module | None,
        history: pd.DataFrame | None,
        closely: bool,
    ) -> Tables:
        def subject():
            return made.applied(self.model) if isinstance(made, Edit) else nullcontext(made or self.model)

        p, labels = self.params, {"method": method, "seed": seed, "forget_ratio": self.ratio}
        with subject() as model:
            answers = evaluate(model, self.processor, self.asked, p.eval_batch_size, p.max_new_tokens)
        names = {
            "run": under_root(p.run_dir).name,
            "model": self.name,
            "benchmark": benchmark_name(p.benchmark_dir),
        }
        found = {"results": score(answers, protocol=p.protocol, **names, **labels)}
        if history is not None and len(history):
            found["history"] = history.assign(**labels)
        if closely:
            words = frequent_words(self.processor, [q for part in self.questions for q in part])
            tables = movement(self.model, self.processor, subject, self.closely, words, p.batch_size)
            found |= {n: t.assign(**labels) for n, t in zip(("residuals", "logits"), tables, strict=True)}
            self._keep(made, f"{method}_{self.ratio}_{seed}")
        return found

    def _keep(self, made: Edit | nn.Module | None, name: str) -> None:
        if isinstance(made, Edit):
            made.save(self.folder / "edits" / f"{name}.safetensors")

    def vanilla(self) -> Tables:
        """The model before unlearning: do nothing."""
        return self.unit("vanilla", self.params.seed, {}, lambda: (None, None), self._reported)

    def retrained(self, place: Path) -> Tables:
        """The base model trained on the retain set only, from its folder."""
        key = {"weights": sha256(next(Path(place).glob("*.safetensors")))}

        def make() -> Made:
            return load_model(place, self.params.dtype, self.params.device), None

        return self.unit("retrained", self.params.seed, key, make, self._reported)

    def baseline(self, method: str, seed: int, chosen: Mapping[str, Any]) -> Tables:
        """A baseline with the settings chosen for it."""
        settings = settings_of(method, self.effort, chosen)
        return self.unit(
            method, seed, {"settings": asdict(settings)},
            lambda: unlearn(method, self.model, self.training, settings, seed), self._first(seed),
        )  # fmt: skip

    def given(self, method: str, seed: int, file: Path) -> Tables:
        """An edit of notebook 04."""
        return self.unit(
            method, seed, {"edit": sha256(file)}, lambda: (Edit.load(file), None), self._first(seed)
        )

    def ours(self) -> Tables:
        """Located, pruned and edited as notebooks 02 to 04 do, in memory."""
        p, config = self.effort, trials.edit_config(self.effort)

        def make() -> Made:
            forget, retain = self.questions
            paths = located_paths(self.model, self.processor, ValidationSets(forget, retain, {}, {}), p)
            near = benchmark_neighbours(p.benchmark_dir, self.ratio, forget, p.seed)
            batches = trials.edit_batches(self.processor, p, forget, retain, near)
            return edit(self.model, paths, *batches, config, p.seed)

        key = {"config": asdict(config), "locating": {name: getattr(p, name) for name in _LOCATING}}
        return self.unit("edited", p.seed, key, make)

    @property
    def _reported(self) -> bool:
        return self.ratio == self.params.forget_ratio

    def _first(self, seed: int) -> bool:
        return self._reported and seed == self.params.seed


def first_of_each(questions: Iterable[Question], count: int) -> list[Question]:
    """Of each person and task the first so many questions."""
    seen: dict[tuple[str, str], int] = {}
    kept = []
    for question in questions:
        key = (question.person_id, question.task)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= count:
            kept.append(question)
    return kept


def together(units: Sequence[Tables]) -> Tables:
    """The tables of all units, one below the other."""
    return {
        name: pd.concat([unit[name] for unit in units if name in unit], ignore_index=True) for name in TABLES
    }


def write_tables(tables: Tables, folder: str | Path) -> None:
    """Each table as a parquet file of its name, whole or not at all."""
    for name, table in tables.items():
        with atomic_path(Path(folder) / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
