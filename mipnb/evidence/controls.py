"""What the located neurons are held against: as many neurons per layer, chosen in ways that ought to be worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from mipnb.benchmarks import Question
from mipnb.evidence.activations import Sums
from mipnb.evidence.ranked import Ranked

#: MANU's term that keeps a fraction finite
EPSILON = 1e-8
POINT_WISE = ("activation", "manu")


def random_rankings(like: Tensor, n_draws: int, seed: int) -> list[Ranked]:
    """Neurons in random order, so many draws of it.

    Args:
        like: any ranking's values, (layers, n_neurons).
        n_draws: how many.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    return [Ranked("random", torch.rand(like.shape, generator=generator), draw) for draw in range(n_draws)]


def lowest(path: Ranked) -> Ranked:
    """The neurons that a recipe's scores rank last, come first."""
    return Ranked("lowest", -path.values)


def largest_activation(sums: Sequence[Sums]) -> Ranked:
    """Point-wise: mean |activation| over all positions of the forget questions.

    Args:
        sums: of the forget set, one or more modalities.
    """
    total = sum(part.absolute.sum(0) for part in sums) / sum(part.count.sum() for part in sums)
    return Ranked("activation", total.float())


def manu(forget: Mapping[str, Sums], retain: Mapping[str, Sums]) -> Ranked:
    """MANU (Liu et al. 2025): the sum of four importances on the forget set over that on the retain set.

    With m the inputs with a picture and t those without, per neuron:
    I_abs = |Zm - Zt| / (Zm + Zt + e), Z the mean |activation|; I_freq the same of N, the number of activations above tau;
    I_var = sqrt(Vm + Vt), V the variance; I_rms = sqrt(|Sm - St| / (Sm + St + e)), S the sum of squares.

    Args:
        forget, retain: modality ("image_text", "text") -> sums. A modality that is missing (text in the vision tower)
            counts as silent.
    """
    return Ranked("manu", (_importance(forget) / (_importance(retain) + EPSILON)).float())


def _importance(sums: Mapping[str, Sums]) -> Tensor:
    """I of one set: float64 (layers, n_neurons)."""
    parts = {modality: _moments(part) for modality, part in sums.items()}
    silent = {name: torch.zeros_like(value) for name, value in next(iter(parts.values())).items()}
    m, t = (parts.get(modality, silent) for modality in ("image_text", "text"))

    def unlike(name: str) -> Tensor:
        return (m[name] - t[name]).abs() / (m[name] + t[name] + EPSILON)

    return (
        unlike("mean") + unlike("count") + (m["variance"] + t["variance"]).sqrt() + unlike("squares").sqrt()
    )


def _moments(sums: Sums) -> dict[str, Tensor]:
    n = sums.count.sum()
    plain, absolute, squares, above = (
        part.sum(0) for part in (sums.plain, sums.absolute, sums.squares, sums.above)
    )
    variance = (squares / n - (plain / n).square()).clamp(min=0)
    return {"mean": absolute / n, "count": above, "variance": variance, "squares": squares}


def permuted_answers(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions, each with the answer to somebody else's question (Adebayo et al. 2018: labels permuted).

    Raises:
        ValueError: all questions are about one person.
    """
    random, found = Random(f"{seed} permuted"), []
    if len({question.person_id for question in questions}) < 2:
        raise ValueError("all questions are about one person; answers can be exchanged between people only")
    for question in questions:
        other = random.choice([q for q in questions if q.person_id != question.person_id])
        found.append(replace(question, answer=other.answer, value=other.value))
    return found
