"""One case of the trial: a vanilla model and a forget set, located on training questions and asked others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

from pydantic import BaseModel
from torch import Tensor, nn

from mipnb import models
from mipnb.benchmarks import Question, forget_ids, retain_ids
from mipnb.evidence.activations import Sums, activation_sums
from mipnb.evidence.asked import Asked, prepare
from mipnb.evidence.people import MODALITIES, Roles, some_of, training_questions, unused_questions
from mipnb.models import FFN

BRANCHES = ("text", "vision")
#: questions of a set and modality that activations are summed over
N_SUMMED = 96
#: so many times as many questions are asked where settings are chosen, as far as there are any: recipes are close to each other
CHOOSING_ASKS = 4


@dataclass(frozen=True, eq=False)
class Case:
    """A vanilla model and a forget set.

    Attributes:
        unit: label in tables.
        model, processor: the vanilla model.
        forget, retain: all training questions that may be located on: rounds and learned gates draw of them.
        questions: those of the sets "forget" and "retain" that are asked, which are none of them.
        params: of the run: batch sizes, how to locate, seed.
        people: IDs of the forget set.
        others: the same as `forget` about another forget set's people, for a control.
        shared: what was found out about the retain set, for all cases of one model and retain set; and scores of rounds.
    """

    unit: str
    model: nn.Module
    processor: Any
    forget: Sequence[Question]
    retain: Sequence[Question]
    questions: Mapping[str, Sequence[Question]]
    params: BaseModel
    people: tuple[str, ...] = ()
    others: Sequence[Question] = ()
    shared: dict = field(default_factory=dict)

    def remembered(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all cases that share it."""
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    def ffns(self, branch: str) -> list[FFN]:
        """The branch's networks."""
        return models.ffns(self.model, branch)

    @cached_property
    def asked(self) -> Asked:
        """The questions that are asked, encoded."""
        return prepare(self.processor, self.questions, self.params.eval_batch_size, self.params.device)

    @cached_property
    def encoded(self) -> Asked:
        """Some of the questions scored at once, spread over all of them, encoded."""
        sets = {group: _spread(self.at_once(group)) for group in ("forget", "retain")}
        return prepare(self.processor, sets, self.params.batch_size, self.params.device)

    def at_once(self, group: str) -> list[Question]:
        """The questions of a set, "forget" or "retain", whose scores are taken once: `trial_locate_...` says how many."""
        params, forget = self.params, group == "forget"
        n_text = params.trial_locate_forget if forget else params.trial_locate_retain
        return some_of(self.forget if forget else self.retain, n_text, params.seed)

    def sums(self, branch: str, group: str) -> dict[str, Sums]:
        """Sums of a branch's activations on `encoded` questions of a set, by modality."""
        if group == "retain":
            return self.remembered(("sums", branch), lambda: self._sums(branch, group))
        return self._sums(branch, group)

    def _sums(self, branch: str, group: str) -> dict[str, Sums]:
        seen = MODALITIES if branch == "text" else ("image_text",)
        at = (self.ffns(branch), branch)
        return {
            modality: activation_sums(self.model, self.encoded.only(set=group, modality=modality), *at)
            for modality in seen
        }

    def means(self, branch: str) -> Tensor:
        """Mean activations over located retain questions, of people who are not asked: (kinds, layers, n)."""
        parts = self.sums(branch, "retain").values()
        whole = [sum(getattr(part, name) for part in parts) for name in Sums.__dataclass_fields__]
        return Sums(*whole).means()

    def modalities(self, branch: str) -> tuple[str, ...]:
        """Which questions a branch is judged by: those that depend on nothing else first."""
        return ("text",) if branch == "text" else ("image_text",)


def _spread(questions: Sequence[Question]) -> list[Question]:
    """At most N_SUMMED questions of each modality, evenly from the first to the last."""
    found = []
    for modality in MODALITIES:
        part = [question for question in questions if question.modality == modality]
        found += part[:: -(-len(part) // N_SUMMED) or 1]
    return found


def trial_cases(
    loaded: Mapping[str, tuple[nn.Module, Any]], root: str, roles: Roles, params: BaseModel
) -> tuple[list[Case], list[Case]]:
    """The cases that settings are chosen on, and those that are reported: every vanilla model with every forget set.

    The former are asked held-back phrasings and pictures of training questions, the latter about other people those of
    Test_Set. Once settings are chosen, the people who were asked for it are people to keep like others, and are located on,
    too, but for the first forget set, which stands in for the other people of a control. All cases of a model that locate on
    the same retain set share what is found out about it.

    Args:
        loaded: name of a vanilla model -> model and processor.
        root: the benchmark.
        roles: from `people.draw_roles`.
        params: of the run; `trial_questions` says how many questions are asked for the report; for the choice, at most
            CHOOSING_ASKS times as many.
    """
    first, n_asked = _located(root, roles.located, 0, params)[0], params.trial_questions
    sets = [_located(root, ids, 0, params)[0] for ids in roles.forget]
    *chosen_on, beside = [
        _located(root, ids, CHOOSING_ASKS * n_asked, params)
        for ids in (*roles.validation, roles.validation_kept)
    ]
    retain = [*first, *(question for part, _ in (*chosen_on[1:], beside) for question in part)]
    unused = unused_questions(root, roles.kept, n_asked, params.seed)
    validation, reported = [], []
    for name, vanilla in loaded.items():
        choosing, shared = {}, {}
        for index, (ids, (forget, asked)) in enumerate(zip(roles.validation, chosen_on, strict=True)):
            both = {"forget": asked, "retain": beside[1]}
            own = (params, ids, (), choosing)
            validation.append(Case(f"{name}/{index}", *vanilla, forget, first, both, *own))
        for index, ids in enumerate(roles.forget):
            asked = unused_questions(root, ids, n_asked, params.seed)
            both = {"forget": asked, "retain": unused}
            others = [*sets, chosen_on[0][0]][index + 1]
            own = (params, ids, others, shared)
            reported.append(Case(f"{name}/{index}", *vanilla, sets[index], retain, both, *own))
    return validation, reported


def run_case(vanilla: tuple[nn.Module, Any], root: str, params: BaseModel) -> Case:
    """The run's own forget set, asked views and phrasings of Test_Set, beside some of the people to keep.

    Args:
        vanilla: the run's model, and processor.
        root: the benchmark.
        params: of the run; `trial_kept` and `trial_questions` say how many people to keep and questions are asked.
    """
    ids, others = (part(root, params.forget_ratio) for part in (forget_ids, retain_ids))
    drawn = Random(f"trial of the run {params.seed}").sample(sorted(others), len(others))
    kept, rest = drawn[: params.trial_kept], drawn[params.trial_kept :]
    forget, _ = _located(root, sorted(ids), 0, params)
    retain, _ = _located(root, rest, 0, params)
    at = (params.trial_questions, params.seed)
    sets = {group: unused_questions(root, part, *at) for group, part in (("forget", ids), ("retain", kept))}
    return Case("run", *vanilla, forget, retain, sets, params, tuple(sorted(ids)))


def _located(
    root: str, ids: Sequence[str], n_each: int, params: BaseModel
) -> tuple[list[Question], list[Question]]:
    return training_questions(root, ids, n_each, params.seed, params.training_dir)
