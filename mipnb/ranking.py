"""From scores of single samples to one value a neuron: set against what the retain set uses, then put together.

Rankings adjust a sample's scores f, with r the retain mean, and N_f, N_r the L1 norms of the forget and the retain mean,
layer by layer, which make both shares of their layer and of one scale:

- "forget": f;
- "difference": f - r; of signed scores (igi), to first order, what silencing takes from the forget set less what it takes from
  the retain set;
- "contrast": f / N_f - r / N_r;
- "ratio": (f / N_f) / (|r| / N_r + 1 / n_neurons), the average share keeping neurons that the retain set does not use
  from an infinite ratio;
- "projected": f / N_f less its part in the span of the retain samples' main directions (each sample's scores of a layer
  are the answer's gradients in the gates, averaged on the way from 0 to 1): moving along what is left changes no retain
  answer, to first order.

Aggregates make one value of many samples' or people's: "mean"; "vote", how many samples have the neuron among their own
best; "people_vote", the same of people, each by the mean of its samples; "people_turns", people's own paths side by side:
everybody's best neuron first, then everybody's second. A sample (or person) all of whose scores of a layer are 0 has no best
neurons there: it counts in means, and neither votes nor has a turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mipnb.scores import Scores
from mipnb.searches import top_neurons

RANKINGS = ("forget", "difference", "contrast", "ratio", "projected")
AGGREGATES = ("mean", "union", "vote", "people_vote", "people_turns")
#: retain directions that "projected" takes out: as many as hold this share of the retain scores' squares
DIRECTIONS_HOLD = 0.9


def adjusted(forget: Scores, retain: Scores | None, ranking: str) -> Tensor:
    """Forget scores (samples, layers, n_neurons), adjusted by the retain scores as the ranking says.

    Raises:
        ValueError: retain scores missing, or of another model, branch or way of scoring.
    """
    if ranking == "forget":
        return forget.values
    _check(forget, retain, ranking)
    if ranking == "difference":
        return forget.values - retain.values.mean(0)
    share = forget.values / _norm(forget.values)
    if ranking == "projected":
        return torch.stack([_projected(share[:, i], retain.values[:, i]) for i in range(share.shape[1])], 1)
    used = retain.values.mean(0) / _norm(retain.values)
    if ranking == "contrast":
        return share - used
    return share / (used.abs() + 1 / forget.n_neurons)


def aggregated(values: Tensor, forget: Scores, aggregate: str, top_k: int) -> Tensor:
    """One value a neuron from adjusted scores, the higher the earlier it is taken: (layers, n_neurons).

    Args:
        values: (samples, layers, n_neurons), of `adjusted`.
        forget: the scores that were adjusted; names of samples are "<person>/<question>" (`locating.question_names`).
        aggregate: one of AGGREGATES but "union", which is no ranking.
        top_k: neurons that a sample or a person votes for.
    """
    mean, heard = values.mean(0), forget.scored
    if aggregate == "mean":
        return mean
    if aggregate != "vote":
        values, heard = _by_person(values, forget.names), _by_person(heard.float(), forget.names) > 0
    ties = _places(mean) / mean.shape[-1]
    if aggregate == "people_turns":
        turns = torch.where(heard[..., None], _places(values), mean.shape[-1])
        return -(turns.min(0).values + ties)
    return votes(values, heard, top_k).double() - ties


def votes(values: Tensor, heard: Tensor, top_k: int) -> Tensor:
    """How many samples have a neuron among their top_k: (layers, n_neurons).

    Args:
        values: (samples, layers, n_neurons).
        heard: bool (samples, layers), who has a vote where.
        top_k: votes of each.
    """
    ballots = heard[..., None].to(values.dtype).expand(*heard.shape, top_k)
    return torch.zeros_like(values).scatter_(-1, top_neurons(values, top_k), ballots).sum(0)


def _places(values: Tensor) -> Tensor:
    """The place of each neuron in its layer, 0 for the highest value, ties by the lower index: float64, same shape."""
    order = top_neurons(values, values.shape[-1])
    places = torch.arange(values.shape[-1], dtype=torch.float64).expand(values.shape)
    return torch.zeros(values.shape, dtype=torch.float64).scatter(-1, order, places)


def _by_person(values: Tensor, names: Sequence[str]) -> Tensor:
    """Means over each person's samples: (people, ...) of (samples, ...), in order of name."""
    people = [name.rpartition("/")[0] for name in names]
    rows = {
        person: [i for i, other in enumerate(people) if other == person] for person in sorted(set(people))
    }
    return torch.stack([values[indices].mean(0) for indices in rows.values()])


def _projected(share: Tensor, retain: Tensor) -> Tensor:
    """Samples (samples, n_neurons) less their part along the main directions of the retain samples of the layer."""
    _, sizes, directions = torch.linalg.svd(retain.double(), full_matrices=False)
    squares = sizes.square()
    if squares.sum() == 0:
        return share
    held = squares.cumsum(0) / squares.sum()
    main = directions[: int((held < DIRECTIONS_HOLD).sum()) + 1]  # (directions, n_neurons)
    return (share.double() - share.double() @ main.T @ main).float()


def _norm(values: Tensor) -> Tensor:
    """L1 norm of the mean over samples, per layer: (layers, 1); 1 for a layer without any score."""
    norm = values.mean(0).abs().sum(-1, keepdim=True)
    return torch.where(norm > 0, norm, torch.ones_like(norm))


def _check(forget: Scores, retain: Scores | None, ranking: str) -> None:
    if retain is None:
        raise ValueError(
            f"ranking {ranking!r} compares with the retain set: give retain_scores, or rank by 'forget'"
        )
    for name in ("branch", "fingerprint"):
        if getattr(forget, name) != getattr(retain, name):
            raise ValueError(
                f"forget and retain scores differ in {name}: {getattr(forget, name)}, {getattr(retain, name)}"
            )
    if forget.parameters != retain.parameters:
        raise ValueError(
            f"forget and retain scores were made differently: {forget.parameters}, {retain.parameters}"
        )
