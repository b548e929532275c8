"""From marks by person to measures with intervals, and to a plain verdict beside a control.

Intervals are percentiles of a bootstrap: vanilla models and forget sets are drawn again, crossed (pigeonhole bootstrap, Owen
2007), then the people of a set, then the draws of a random choice. People are drawn once for all choices, so that differences
are paired, and once for all units that ask the same people; draws of a choice once for all of its marks. A measure at its bound
for everybody has an interval without width. Two models and a few sets are few: intervals are then rather too narrow. Nothing is
corrected for the number of measures and controls that are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from mipnb.evidence.measures import NOTHING

BETTER, NOT_BETTER, WORSE = "better", "not better", "worse"
#: every measure is better the larger it is
MEASURES = {
    "necessity": "fall on the forget set when the neurons are silenced",
    "spared": "fall on the forget set less that on the retain set",
    "ratio": "fall on the forget set per point lost on the retain set",
    "sufficiency": "what the forget set keeps when only these neurons act",
    "area_removed": "`spared`, mean over log k",
    "area_kept": "`sufficiency`, mean over log k",
    "forgetting": "share of the forget set's marks that the edit took",
    "retention": "share of the retain set's marks that the edit left",
}
SETS = ("forget", "retain")
MARKS = ("recall", "probability")
#: what a control's measure must be exceeded by is a factor for `ratio`, a difference for all others
FACTORS = ("ratio",)


class Resampled:
    """Means of marks by choice, as they are (row 0) and resampled (the other rows).

    Attributes:
        values: (set, measure, choice, k) -> float64 (1 + n_resamples,); random choices averaged over their draws.
        n_questions: questions of the retain set, of the unit that asks most; units ask the same ones.
    """

    def __init__(self, marks: pd.DataFrame, mark: str, n_resamples: int = 2000, seed: int = 0):
        self.random = np.random.default_rng(seed)
        self.rows = 1 + n_resamples
        units = sorted(marks.unit.unique())
        self.units = self._crossed(units)
        self.people: dict[tuple, np.ndarray] = {}
        self.draws: dict[tuple, np.ndarray] = {}
        parts = [self._unit(marks[marks.unit == unit], mark) for unit in units]
        keys = parts[0].keys()
        if lacking := [part.keys() ^ keys for part in parts if part.keys() != keys]:
            raise ValueError(
                f"units have different rows: {sorted(lacking[0], key=str)[:3]} are not in all of {units}"
            )
        stacked = {key: np.stack([part[key] for part in parts], 1) for key in keys}  # (rows, units, draws)
        self.values = {key: self._over_units(key[2], value) for key, value in stacked.items()}
        untouched = marks[(marks.choice == NOTHING) & (marks["set"] == "retain")]
        self.n_questions = int(untouched.groupby("unit").n.sum().max())

    def _weights(self, n: int) -> np.ndarray:
        """Weights of n things, (rows, n): all alike in row 0, drawn with replacement in the others."""
        drawn = self.random.multinomial(n, np.full(n, 1 / n), size=self.rows - 1) / n
        return np.vstack([np.full((1, n), 1 / n), drawn])

    def _crossed(self, units: Sequence[str]) -> np.ndarray:
        """Weights of units "<model>/<set>", (rows, units): a model's times a set's; their own where pairs are missing."""
        models, _, sets = zip(*(unit.rpartition("/") for unit in units), strict=True)
        (by_model, each), (by_set, one) = (self._columns(names) for names in (models, sets))
        if by_model.shape[1] * by_set.shape[1] != len(units):
            return self._weights(len(units))
        return by_model[:, each] * by_set[:, one]

    def _columns(self, names: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        """Weights of the distinct names, and which column is whose."""
        distinct = sorted(set(names))
        return self._weights(len(distinct)), [distinct.index(name) for name in names]

    def _unit(self, marks: pd.DataFrame, mark: str) -> dict[tuple, np.ndarray]:
        """(set, measure, choice, k) -> (rows, draws) of one unit."""
        found = {}
        for group in SETS:
            part = marks[marks["set"] == group]
            table = part.pivot_table(
                index="person_id", columns=["measure", "choice", "k", "draw"], values=mark, aggfunc="mean"
            )
            who = tuple(table.index)
            if who not in self.people:
                self.people[who] = self._weights(len(who))
            means = self.people[who] @ table.to_numpy()  # (rows, columns)
            for key, columns in _runs(table.columns):
                found[(group, *key)] = means[:, columns]
        return found

    def _over_units(self, choice: str, values: np.ndarray) -> np.ndarray:
        """(rows, units, draws) of a choice -> (rows,): means over the resampled units and draws."""
        key = (choice, values.shape[2])
        if key not in self.draws:
            self.draws[key] = self._weights(values.shape[2])
        return np.einsum("rud,ru,rd->r", values, self.units, self.draws[key])

    def mean(self, group: str, measure: str, choice: str, k: int) -> np.ndarray:
        """Resampled means (rows,)."""
        return self.values[group, measure, choice, k]

    def untouched(self, group: str) -> np.ndarray:
        """Resampled means (rows,) of the untouched model."""
        return self.values[group, NOTHING, NOTHING, 0]

    def steps(self, measure: str, choice: str) -> list[int]:
        """The k that a choice was measured at, ascending."""
        return sorted(key[3] for key in self.values if key[:3] == ("forget", measure, choice))


def _runs(columns: pd.MultiIndex) -> Iterator[tuple[tuple, list[int]]]:
    """(measure, choice, k) and the numbers of its columns, one a draw."""
    groups: dict[tuple, list[int]] = {}
    for index, (measure, choice, k, _) in enumerate(columns):
        groups.setdefault((measure, choice, k), []).append(index)
    yield from groups.items()


def measured(found: Resampled, choice: str, k: int | None) -> dict[str, np.ndarray]:
    """Every measure of a choice that its marks allow: name -> (rows,).

    Args:
        found: marks of one branch.
        choice: "path", "random", ...
        k: neurons per layer for all measures but the areas; None for the areas alone.

    `ratio` counts a loss of less than half a question of the retain set, and any gain, as half a question, of either set:
    neurons that do nothing have ratio 1.
    """
    out = {}
    if k is not None and ("forget", "remove", choice, k) in found.values:
        falls = [found.untouched(s) - found.mean(s, "remove", choice, k) for s in SETS]
        out |= {"necessity": falls[0], "spared": falls[0] - falls[1]}
        least = 0.5 / found.n_questions
        out["ratio"] = falls[0].clip(least) / falls[1].clip(least)
    if k is not None and ("forget", "keep", choice, k) in found.values:
        out["sufficiency"] = found.mean("forget", "keep", choice, k)
    if k is not None and ("forget", "edit", choice, k) in found.values:
        left = [found.mean(s, "edit", choice, k) / found.untouched(s) for s in SETS]
        out |= {"forgetting": 1 - left[0], "retention": left[1]}
    if k is None:
        out |= _areas(found, choice)
    return out


def _areas(found: Resampled, choice: str) -> dict[str, np.ndarray]:
    """Areas under the curves over log2 k, as means (trapezoids), of a choice with several k."""
    out = {}
    steps = found.steps("remove", choice)
    if len(steps) > 1:
        spared = [measured(found, choice, k)["spared"] for k in steps]
        out["area_removed"] = _area(steps, spared)
    steps = found.steps("keep", choice)
    if len(steps) > 1:
        out["area_kept"] = _area(steps, [found.mean("forget", "keep", choice, k) for k in steps])
    return out


def _area(steps: Sequence[int], values: Sequence[np.ndarray]) -> np.ndarray:
    at = np.log2(steps)
    return np.trapezoid(np.stack(values), at, axis=0) / (at[-1] - at[0])


def measure_table(
    marks: pd.DataFrame, mark: str = "recall", n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Every measure of every choice, with its 95 % interval.

    Args:
        marks: of one branch (`branch_marks` of one or more units, concatenated), restricted to one modality or not.
        mark: "recall" or "probability".
        n_resamples, seed: of the bootstrap.

    Returns:
        One row a choice, k and measure: choice, k (0 for areas), measure, mark, value, low, high.
    """
    found = Resampled(marks, mark, n_resamples, seed)
    rows = []
    for choice in _choices(marks):
        for k in [*_steps(marks, choice), None]:
            rows += [
                (choice, k or 0, name, mark, *_interval(values))
                for name, values in measured(found, choice, k).items()
            ]
    return pd.DataFrame(rows, columns=["choice", "k", "measure", "mark", "value", "low", "high"])


def verdict_table(
    marks: pd.DataFrame,
    subject: str = "path",
    controls: Sequence[str] = ("random",),
    k: int | None = None,
    mark: str = "recall",
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """A plain verdict on every measure: is a choice better than a control?

    Args:
        marks: as for `measure_table`.
        subject: the choice on trial.
        controls: choices it is held against, one after the other.
        k: neurons per layer; by default the only one that `subject` has, or the largest that all have.
        mark, n_resamples, seed: as for `measure_table`.

    Returns:
        One row a control and measure: control, measure, mark, k (0 for areas), value, control_value, margin (a factor for
        `ratio`, else a difference), low, high (of the margin, 95 %), verdict: "better", "not better" (the interval holds
        no difference) or "worse".
    """
    found = Resampled(marks, mark, n_resamples, seed)
    steps = _steps(marks, subject)
    k = steps[-1] if k is None else k
    rows = []
    for control in controls:
        for at in (k, None):
            own, others = measured(found, subject, at), measured(found, control, at)
            rows += [
                (
                    control,
                    name,
                    mark,
                    at or 0,
                    own[name][0],
                    others[name][0],
                    *_margin(name, own[name], others[name]),
                )
                for name in own
                if name in others
            ]
    columns = [
        "control",
        "measure",
        "mark",
        "k",
        "value",
        "control_value",
        "margin",
        "low",
        "high",
        "verdict",
    ]
    return pd.DataFrame(rows, columns=columns)


def _margin(name: str, own: np.ndarray, other: np.ndarray) -> tuple[float, float, float, str]:
    """Margin, its interval, verdict."""
    margin, none = (own / other, 1.0) if name in FACTORS else (own - other, 0.0)
    value, low, high = _interval(margin)
    return value, low, high, BETTER if low > none else WORSE if high < none else NOT_BETTER


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """The value as it is, and the 2.5 % and 97.5 % points of the resampled ones."""
    low, high = np.quantile(values[1:], [0.025, 0.975], method="inverted_cdf")
    return float(values[0]), float(low), float(high)


def _choices(marks: pd.DataFrame) -> list[str]:
    return [choice for choice in marks.choice.unique() if choice != NOTHING]


def _steps(marks: pd.DataFrame, choice: str) -> list[int]:
    return sorted(int(k) for k in marks[marks.choice == choice].k.unique())
