"""How many neurons an edit needs to forget enough while it keeps enough: of the path, and of random choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mipnb.evidence.verdicts import Resampled, measured

SURE = 0.975  # share of the resamples in which a goal is met that is surely met


def neurons_needed(
    marks: pd.DataFrame,
    choices: Sequence[str],
    forgetting: float,
    retention: float = 0.99,
    mark: str = "recall",
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The fewest neurons per layer with which the edit forgets enough and keeps enough.

    Args:
        marks: from `edit_marks`, several k.
        choices: "path", "random", ...
        forgetting: least share of the forget set's marks taken.
        retention: least share of the retain set's marks left.
        mark: "recall" or "probability".
        n_resamples, seed: of the bootstrap, see `verdicts`.

    Returns:
        A column a choice: k, or inf where no k tried was enough. Row 0: as measured; the others: resampled, the same people
            for every choice.
    """
    found = Resampled(marks, mark, n_resamples, seed)
    needed = pd.DataFrame(np.inf, index=range(found.rows), columns=list(choices))
    for choice in choices:
        for k in reversed(found.steps("edit", choice)):
            result = measured(found, choice, k)
            enough = (result["forgetting"] >= forgetting) & (result["retention"] >= retention)
            needed.loc[enough, choice] = float(k)
    return needed


def needed_sentence(needed: pd.DataFrame, forgetting: float) -> str:
    """Markdown on the goal of editing: at most a quarter of the neurons that random choice needs; how surely it is met.

    Args:
        needed: from `neurons_needed`, with "path" and "random".
        forgetting: the share of recall that had to be forgotten.
    """
    told = ", ".join(
        f"{name} {'none tried is enough' if np.isinf(k) else f'{k:g}'}" for name, k in needed.loc[0].items()
    )
    alone = np.isfinite(needed.path) & np.isinf(needed.random)
    met = np.isfinite(needed.random) & (needed.path <= needed.random / 4)
    if np.isinf(needed.path[0]):
        verdict = "**not met**: no number of path neurons tried was enough"
    elif alone[0]:
        verdict = "open: the path is enough, no number of random neurons tried was"
    else:
        surely = met[1:].mean() >= SURE
        verdict = "**not met**" if not met[0] else "met" if surely else "met as measured, not surely"
    return (
        f"Neurons per layer to forget {forgetting:.0%} at 0.99 retention: {told}. The goal (a quarter of random) is {verdict}. "
        f"With people, forget sets and models drawn again it is met in {met[1:].mean():.0%} of {len(needed) - 1} resamples, "
        f"and in {alone[1:].mean():.0%} the path alone is enough."
    )
