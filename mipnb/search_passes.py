"""The forward and backward passes that locating makes, one record a kind of pass.

Counts follow `attribution.attribute`, `searches`, `scaled_path` and `stieltjes`, and are tested against them with hooks on
the model. Passes begin in the middle, as they do on every family known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mipnb.attribution import MAX_ROWS, TANGENTS, UNSCALED
from mipnb.parts import part_size
from mipnb.passes import Pass, Question, portions
from mipnb.rules import ADAPTIVE, RULES, points_below_one
from mipnb.searches import SHORTLIST


@dataclass(frozen=True)
class Search:
    """How a branch is located.

    Attributes:
        branch: "text" or "vision".
        layers, neurons: of the branch.
        search: "greedy", "one_pass", "exact", "tangent", "shortlist", "gradient" or "relevance".
        n_steps: m.
        joint: Eq. 4 as printed, rather than each neuron's own integral.
        gap: whether the completeness gap is computed beside the scores.
        rule: see `rules.quadrature`; or "stieltjes".
        max_rows: the most rows of a pass.
    """

    branch: str
    layers: int
    neurons: int
    search: str
    n_steps: int
    joint: bool
    gap: bool = False
    rule: str = RULES[0]
    max_rows: int = MAX_ROWS

    @property
    def adaptive(self) -> bool:
        """Whether points are each sample's own."""
        return self.rule in ADAPTIVE and self.search not in UNSCALED

    @property
    def points(self) -> int:
        """Grid points at which something is scaled."""
        if self.search in UNSCALED:
            return 0
        return self.n_steps - 1 if self.adaptive else points_below_one(self.rule, self.n_steps)

    @property
    def at_one(self) -> bool:
        """Whether the unscaled model's gradients are wanted."""
        return self.search in (*UNSCALED, *TANGENTS) or self.points < self.n_steps

    @property
    def samples_at_a_time(self) -> int:
        """Samples that go through their passes together."""
        return part_size(self.max_rows, 1 if self.adaptive else max(1, self.points))

    @property
    def sets(self) -> int:
        """Sets of neurons scaled one after the other: one a layer, or all together."""
        return 1 if self.search == "one_pass" else self.layers

    def gated(self, number: int) -> int:
        """Layers that are scaled with the so manieth set."""
        return self.layers if self.search == "one_pass" else number + 1

    def sets_of(self, number: int, repeats: int) -> Iterator[tuple[int, int]]:
        """Sets of neurons that the so manieth layer's scores scale, as (sets in a pass, how often)."""
        if self.search == "exact":
            yield from portions(self.neurons, repeats).items()
        elif number or self.search not in TANGENTS:
            yield 1, 1
        if self.search == "shortlist":
            yield 1, 1
            yield from portions(min(SHORTLIST, self.neurons), repeats).items()


def locating(search: Search, question: Question, n_questions: int, batch_size: int) -> list[Pass]:
    """Passes that score every neuron of a branch for a number of questions (`locating.locate`)."""
    found = []
    for batch, times in portions(n_questions, batch_size).items():
        for rows, parts in portions(batch, search.samples_at_a_time).items():
            found += [
                replace(one, count=one.count * times * parts) for one in _scored(search, question, rows)
            ]
    return found


def _scored(search: Search, question: Question, rows: int) -> Iterator[Pass]:
    """Passes for one part of a batch: the unscaled model, then whatever the search scales."""
    text = search.branch == "text"
    first = Pass(1, rows, question.positions, question.patches, question.answer, kept=1)
    first = replace(first, by_position=search.layers if search.joint else 0, narrow=not search.joint)
    if search.at_one:
        first = replace(first, gated=search.layers, text_from=0, vision_from=None if text else 0)
    yield first
    plain = replace(first, gated=0, by_position=0, narrow=True, text_from=None, vision_from=None, entry=0)
    plain = replace(plain, patches=0 if text else question.patches, unscaled=search.layers * search.at_one)
    repeats = max(1, search.max_rows // rows)
    if search.adaptive:
        yield from _by_sample(search, plain)
    elif search.points and search.search != "one_pass" and not (search.joint or search.gap):
        yield from _layer_by_layer(search, plain, repeats)
    else:
        yield from _from_the_first_layer(search, plain, repeats)
    if search.gap and not search.adaptive:  # those have been at 0
        yield from (replace(plain, gated=search.gated(number)) for number in range(search.sets))


def _layer_by_layer(search: Search, plain: Pass, repeats: int) -> Iterator[Pass]:
    """Each layer from its own entries at every grid point, which are then led to the next layer."""
    for layer in range(search.layers):
        here = replace(plain, entry=layer, gated=1, kept=search.points if layer else 1)
        yield from _differentiated(search, here, layer, layer, repeats)
        for copies, times in portions(search.points, repeats).items() if layer < search.layers - 1 else ():
            yield _copied(replace(here, count=times, stop=True, kept=search.points), copies)


def _from_the_first_layer(search: Search, plain: Pass, repeats: int) -> Iterator[Pass]:
    """Gradients in all that is scaled: every pass begins at the first layer."""
    for number in range(search.sets) if search.points else ():
        gated = search.gated(number)
        here = replace(plain, gated=gated, by_position=gated if search.joint else 0)
        yield from _differentiated(search, here, number, 0, repeats)


def _differentiated(search: Search, here: Pass, number: int, layer: int, repeats: int) -> Iterator[Pass]:
    """Passes with gradients from a layer on that score the so manieth layer, of all its sets at every grid point."""
    for candidates, times in search.sets_of(number, repeats):
        for copies, jobs in portions(candidates * search.points, repeats).items():
            yield _copied(_graph(search, replace(here, count=times * jobs), layer), copies)


def _by_sample(search: Search, plain: Pass) -> Iterator[Pass]:
    """Points of each sample's own: the value of the silent set, then a point after the other."""
    for number in range(search.sets):
        here = replace(plain, gated=search.gated(number))
        yield here
        if search.points:
            yield _graph(search, replace(here, count=search.points), 0)


def _graph(search: Search, one: Pass, layer: int) -> Pass:
    """A pass with gradients from a layer of the located branch on."""
    if search.branch == "text":
        return replace(one, text_from=layer)
    return replace(one, text_from=0, vision_from=layer)


def _copied(one: Pass, copies: int) -> Pass:
    return replace(one, rows=one.rows * copies, copies=copies)
