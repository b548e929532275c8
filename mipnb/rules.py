"""Quadrature rules on [0, 1]: where the activations are scaled to, and what each gradient weighs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RULES = ("right", "midpoint", "gauss")
ADAPTIVE = ("stieltjes",)  # points of each sample's own, see `stieltjes`


def quadrature(rule: str, n_steps: int) -> tuple[Tensor, Tensor]:
    """Points and weights of a rule; the weights sum to 1, so that scores do not grow with the number of
    steps.

    Args:
        rule: "right", the right Riemann sum at k/m, k = 1..m, as Eq. 4 and 6 are printed (error of order 1/m,
            and the last point is the unscaled model); "midpoint", (k - 1/2)/m (order 1/m^2); "gauss",
            Gauss-Legendre (exact for polynomials of degree 2m - 1).
        n_steps: number of points m, at least 1.

    Returns:
        alphas (m,) ascending in (0, 1] and weights (m,), both float32.

    Raises:
        ValueError: unknown rule, or fewer than one step.
    """
    if n_steps < 1:
        raise ValueError(f"n_steps is {n_steps}; an integral needs at least 1 step")
    if rule == "right":
        alphas, weights = np.arange(1, n_steps + 1) / n_steps, np.full(n_steps, 1 / n_steps)
    elif rule == "midpoint":
        alphas, weights = (np.arange(n_steps) + 0.5) / n_steps, np.full(n_steps, 1 / n_steps)
    elif rule == "gauss":
        nodes, halves = np.polynomial.legendre.leggauss(n_steps)  # on [-1, 1], weights summing to 2
        alphas, weights = (nodes + 1) / 2, halves / 2
    else:
        raise ValueError(f"rule {rule!r} is not one of {RULES}")
    return torch.tensor(alphas, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32)


def check_search(search: str, rule: str, score: str = "complete") -> None:
    """ValueError for a rule that a search, or its scores, cannot go by."""
    if rule in ADAPTIVE and search in ("exact", "tangent", "shortlist"):
        raise ValueError(
            f"rule {rule!r} takes its points from one set a layer that is scaled; `{search}` has many, or scales none: choose "
            f"one of {RULES}, or search greedy or one_pass"
        )
    if rule in ADAPTIVE and score == "joint" and search in ("greedy", "one_pass"):
        raise ValueError(
            f"rule {rule!r} shares out the change of the value, and joint scores add up to none: choose one of {RULES}, or "
            f"score complete"
        )


def adds_up(kind: str, score: str, search: str) -> bool:
    """Whether a set's integrals are to add up to a change of F that can be looked at: a completeness gap is defined."""
    return kind == "igi" and score == "complete" and search in ("greedy", "one_pass")


def default_rule(kind: str, score: str, search: str) -> str:
    """The rule unless one is given: `stieltjes` where integrals are to add up, else `right`, the paper's."""
    return "stieltjes" if adds_up(kind, score, search) else "right"


def points_below_one(rule: str, n_steps: int) -> int:
    """How many points of a rule scale anything; at 1 the model is as it is."""
    return int((quadrature(rule, n_steps)[0] < 1).sum())
