"""Ways of making a path: the run's own, and improvements that the trial chooses among.

A recipe says how scores are set against the retain set's, how people's scores make one path, at which positions they
are taken, how the language branch's budget is divided between questions with and without a picture, and whether layers
get neurons by their causal effect.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import BaseModel
from torch import Tensor

from mipnb.benchmarks import Question
from mipnb.evidence.cases import Case
from mipnb.evidence.measures import layer_effects
from mipnb.evidence.positions import GATES, at_positions, locate_by_position
from mipnb.evidence.ranked import Ranked, even_sizes, weighted_sizes
from mipnb.in_rounds import check_weight
from mipnb.locating import locate, of_modality
from mipnb.ranking import adjusted, aggregated
from mipnb.rules import RULES
from mipnb.scores import Scores
from mipnb.searches import top_neurons

#: the positions of scores of the run's kind, by the trial's search, and of those by attribution patching: all of the unscaled
#: model's, gate by gate its gradient, sign and all, in either branch; or the first position's alone
RUN, PATCHED, PATCHED_FIRST = "run", "patched", "patched, first"
#: the way that gives scores at every one of `positions.POSITIONS`
BY_POSITION = "all"
WAYS = (RUN, BY_POSITION, PATCHED, PATCHED_FIRST)
#: modality -> set -> positions -> scores
Located = Mapping[str, Mapping[str, Mapping[str, Scores]]]


@dataclass(frozen=True)
class Recipe:
    """How a path is made of scores.

    Attributes:
        ranking, aggregate: see `mipnb.ranking`.
        positions: RUN: scores of the run's kind, by the trial's search; PATCHED: those of attribution patching; PATCHED_FIRST:
            of these the first position's; else one of `positions.POSITIONS`.
        picture_share: language branch: share of the neurons, 0 to 1, that come from questions with a picture.
        weighted: whether layers get neurons by their causal effect, measured on the located questions.
        rounds: how often scores are taken, each time with the neurons chosen so far silenced, and added up: differences of
            attribution patching, see `mipnb.in_rounds`.
        retain_weight: of differences, what a point lost on the retain set weighs.
    """

    ranking: str = "contrast"
    aggregate: str = "mean"
    positions: str = RUN
    picture_share: float = 0.0
    weighted: bool = False
    rounds: int = 1
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; expected at least 1")
        made = (self.ranking, self.aggregate, self.positions, self.picture_share)
        if self.rounds > 1 and made != (known := ("difference", "mean", PATCHED, 0.0)):
            raise ValueError(
                f"ranking, aggregate, positions and picture_share are {made}; {self.rounds} rounds add up scores of one kind: "
                f"choose {known}, or 1 round"
            )
        check_weight(self.retain_weight)
        if self.ranking != "difference" and self.retain_weight != 1:
            raise ValueError(
                f"retain_weight is {self.retain_weight:g} and ranking is {self.ranking!r}; only a difference weighs the "
                "retain set: leave it 1, or rank by 'difference'"
            )

    @property
    def name(self) -> str:
        """A short name for tables."""
        parts = [self.ranking, self.aggregate, self.positions]
        parts += [f"pictures {self.picture_share:g}"] * (self.picture_share > 0)
        parts += ["by effect"] * self.weighted + [f"{self.rounds} rounds"] * (self.rounds > 1)
        parts += [f"retain x {self.retain_weight:g}"] * (self.retain_weight != 1)
        return ", ".join(parts)

    @property
    def way(self) -> str:
        """How its scores are made: one of WAYS."""
        return self.positions if self.positions in WAYS else BY_POSITION

    @property
    def first_token(self) -> Recipe:
        """The same with scores of the first position alone, taken once, as released code takes them."""
        return replace(self, positions=PATCHED_FIRST if self.way == PATCHED else "first", rounds=1)


def located_scores(case: Case, branch: str, pictured: bool = False, ways: Collection[str] = WAYS) -> Located:
    """All scores that recipes need, of both sets.

    Args:
        case: model and questions.
        branch: "text" or "vision".
        pictured: for the text branch, whether to locate on questions with a picture, too.
        ways: which of WAYS.
    """
    modalities = ["image_text"] if branch == "vision" else ["text"] + ["image_text"] * pictured
    return {
        modality: {
            "forget": scores_of(case, case.at_once("forget"), branch, modality, ways),
            "retain": _of_the_retain_set(case, branch, modality, ways),
        }
        for modality in modalities
    }


def _of_the_retain_set(case: Case, branch: str, modality: str, ways: Collection[str]) -> dict[str, Scores]:
    """Scores of the located retain set, each way made once for all cases of a model."""
    found: dict[str, Scores] = {}
    summed = _summed_gates(case.params)  # then the run's own are among those by position
    for way in dict.fromkeys(BY_POSITION if summed and way == RUN else way for way in ways):
        key = ("scores", branch, modality, way)
        found |= case.remembered(
            key, lambda w=way: scores_of(case, case.at_once("retain"), branch, modality, {w})
        )
    return found


def scores_of(
    case: Case, questions: Sequence[Question], branch: str, modality: str, ways: Collection[str]
) -> dict[str, Scores]:
    """Positions -> scores of the questions of one modality.

    Args:
        case: model and parameters.
        questions: any.
        branch: "text" or "vision".
        modality: "text" or "image_text".
        ways: of WAYS; BY_POSITION for all that are taken by position. Where the run's own are sums over positions of the
            same gradients (`_summed_gates`), all of those are made together.
    """
    params, found = case.params, {}
    at = (case.model, case.processor, of_modality(questions, modality), branch)
    size = (params.batch_size, params.device)
    own = {"kind": kind_of(case, branch), "n_steps": params.n_steps}
    if PATCHED in ways:
        found[PATCHED] = locate(*at, *size, search="gradient", kind="igi", top_k=1, completeness=False)
    if PATCHED_FIRST in ways:
        unscaled = locate_by_position(*at, "igi", 1, "right", *size)  # one step of this rule scales nothing
        found[PATCHED_FIRST] = unscaled["first"]
    if BY_POSITION in ways or (RUN in ways and _summed_gates(params)):
        found |= locate_by_position(
            *at, **own, rule=fixed_rule(params), batch_size=params.batch_size, device=params.device
        )
        gates = found.pop(GATES)
        found |= {RUN: gates} if _summed_gates(params) else {}
    if RUN in ways and RUN not in found:
        own |= {"score": params.score, "search": params.trial_search, "top_k": top_k_of(case, branch)}
        own |= {"rule": params.rule}
        found[RUN] = locate(*at, *size, completeness=False, **own)
    return found


def _summed_gates(params: BaseModel) -> bool:
    """Whether the run's own scores are those of `positions.GATES`."""
    return params.trial_search == "one_pass" and params.score == "complete" and params.rule in RULES


def fixed_rule(params: BaseModel) -> str:
    """The run's rule; the paper's, where points are each sample's own: these have no positions, and fit no set of many."""
    return params.rule if params.rule in RULES else RULES[0]


def top_k_of(case: Case, branch: str) -> int:
    """Neurons per layer of the run's path."""
    return case.params.text_top_k if branch == "text" else case.params.vision_top_k


def size_of(case: Case, branch: str) -> int:
    """Neurons per layer at which choices are held beside each other; also what samples and people vote for."""
    return case.params.trial_text_top_k if branch == "text" else case.params.trial_vision_top_k


def kind_of(case: Case, branch: str) -> str:
    """ "igi" or "ifi", as the run locates a branch."""
    return "igi" if branch == "text" else case.params.vision_kind


def follow(recipe: Recipe, located: Located, top_k: int, choice: str = "path") -> Ranked:
    """The ranking that a recipe makes of scores.

    Args:
        recipe: what to do.
        located: from `located_scores`.
        top_k: neurons that a sample or person votes for.
        choice: name of the ranking.
    """
    parts = {modality: _ranked(recipe, sets, top_k) for modality, sets in located.items()}
    if not recipe.picture_share or len(parts) == 1:
        return Ranked(choice, next(iter(parts.values())))
    shares = {"text": 1 - recipe.picture_share, "image_text": recipe.picture_share}
    turns = [_places(parts[modality]) / max(share, 1e-9) for modality, share in shares.items()]
    return Ranked(choice, -torch.minimum(*turns))


def _ranked(recipe: Recipe, sets: Mapping[str, Mapping[str, Scores]], top_k: int) -> Tensor:
    forget, retain = (at_positions(sets[group][recipe.positions]) for group in ("forget", "retain"))
    retain = replace(retain, values=recipe.retain_weight * retain.values)
    return aggregated(adjusted(forget, retain, recipe.ranking), forget, recipe.aggregate, top_k)


def _places(values: Tensor) -> Tensor:
    """1 for the highest value of each layer, 2 for the next, ...: float64 (layers, n_neurons)."""
    order = top_neurons(values, values.shape[-1])
    places = torch.arange(1, values.shape[-1] + 1, dtype=torch.float64).expand(values.shape)
    return torch.zeros(values.shape, dtype=torch.float64).scatter(-1, order, places)


def sizes_of(case: Case, branch: str, recipe: Recipe, ranked: Ranked, k: int) -> tuple[int, ...]:
    """Neurons per layer: k, or by causal effect so many in all as k a layer."""
    layers, n_neurons = ranked.values.shape
    if not recipe.weighted:
        return even_sizes(k, layers, n_neurons)
    modality = "text" if branch == "text" else "image_text"
    effects = layer_effects(
        case.model, case.encoded.only(modality=modality), case.ffns(branch), ranked, min(k, n_neurons)
    )
    return weighted_sizes(effects, k, n_neurons)
