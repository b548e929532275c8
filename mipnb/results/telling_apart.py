"""Fig. 7: can a stranger tell whom a model was made to forget, from its output logits alone?

A small classifier learns from some people's questions which of them were forgotten, and is asked about people that it has
not seen: folds are made of people, never of questions. A model that betrays whom it forgot leaks, whatever it no longer says.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mipnb.artefacts import stage_dir
from mipnb.params import subset
from mipnb.results.residuals import read_table
from mipnb.results.store import stored

COLUMNS = ["method", "seed", "forget_ratio", "split", "modality", "person_id", "features"]
FOLDS = 5
#: dimensions that the logits are brought down to, and the classifier's hidden units
DIMENSIONS, HIDDEN = 16, 16
MEASURES = ("auc", "accuracy")


def classifier(n_rows: int, n_features: int, seed: int) -> Pipeline:
    """Standardised logits, their main directions, and a multi-layer perceptron of one hidden layer."""
    kept = max(1, min(DIMENSIONS, n_rows - 1, n_features))
    network = MLPClassifier((HIDDEN,), solver="lbfgs", alpha=1.0, max_iter=200, random_state=seed)
    return make_pipeline(StandardScaler(), PCA(kept, whiten=True, random_state=seed), network)


def folds(forgotten: np.ndarray, people: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows to be asked about, nobody on both sides.

    Args:
        forgotten: bool (rows,), the same for all rows of a person.
        people: (rows,).
        seed: of the deal.

    Raises:
        ValueError: fewer than two people on a side.
    """
    counts = [len(set(people[forgotten == side])) for side in (True, False)]
    if min(counts) < 2:
        raise ValueError(
            f"{counts[0]} people to forget and {counts[1]} to keep: expected at least two of each"
        )
    split = StratifiedGroupKFold(min(FOLDS, *counts), shuffle=True, random_state=seed)
    return list(split.split(people[:, None], forgotten, people))


def out_of_fold(
    features: np.ndarray, forgotten: np.ndarray, people: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """How sure a classifier that has not seen its person is that a row was forgotten: probability and fold of every row.

    Args:
        features: float (rows, n).
        forgotten, people: see `folds`.
        seed: of the folds and the classifier.
    """
    scores, fold = np.full(len(people), np.nan), np.zeros(len(people), dtype=int)
    for index, (learn, ask) in enumerate(folds(forgotten, people, seed)):
        model = classifier(len(learn), features.shape[1], seed)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # stopped early: it is regularised, and tells apart or not
            model.fit(features[learn], forgotten[learn])
        scores[ask], fold[ask] = model.predict_proba(features[ask])[:, 1], index
    return scores, fold


def measures(
    scores: np.ndarray, fold: np.ndarray, forgotten: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Area under the ROC curve, of pairs of rows of one fold (one classifier), and balanced accuracy; 0.5 is chance.

    Args:
        scores, fold: from `out_of_fold`.
        forgotten: bool (rows,).
        weights: of the rows.

    Returns:
        Both from 0 to 1; NaN where a side has no rows.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    area = pairs = 0.0
    for index in np.unique(fold):
        here = (fold == index) & (weights > 0)
        if len(set(forgotten[here])) == 2:
            both = weights[here & forgotten].sum() * weights[here & ~forgotten].sum()
            area += both * roc_auc_score(forgotten[here], scores[here], sample_weight=weights[here])
            pairs += both
    called = scores > 0.5
    right = [_share(called == side, (forgotten == side) * weights) for side in (True, False)]
    return (area / pairs if pairs else float("nan")), float(np.mean(right))


def _share(right: np.ndarray, weights: np.ndarray) -> float:
    return float((right * weights).sum() / weights.sum()) if weights.sum() else float("nan")


def permuted(forgotten: np.ndarray, people: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Labels dealt out anew among the people: as many forgotten people, all rows of a person alike."""
    names, first = np.unique(people, return_index=True)
    dealt = dict(zip(names, random.permutation(forgotten[first]), strict=True))
    return np.array([dealt[person] for person in people])


def tell_apart(
    rows: pd.DataFrame, n_resamples: int = 200, n_permutations: int = 20, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One method's classifier, over all its seeds, for one modality.

    Args:
        rows: columns COLUMNS, of one method and modality.
        n_resamples: of the bootstrap over people, which are the same for every method.
        n_permutations: labels permuted by person, the classifier trained anew (on the method's first seed).
        seed: of folds, classifier, bootstrap and permutations.

    Returns:
        draws: one row a resample and measure: measure, resample (0: everybody once), value, mean over the seeds;
        null: one row a permutation and measure: measure, value.
    """
    weights = _weights(rows, n_resamples, seed)
    draws, null = [], []
    for index, (_, part) in enumerate(rows.groupby("seed", sort=True)):
        features, forgotten, people = _arrays(part)
        found = out_of_fold(features, forgotten, people, seed)
        draws += [(i, *measures(*found, forgotten, w.loc[people].to_numpy())) for i, w in weights.items()]
        if index == 0:
            random = np.random.default_rng(seed)
            for _ in range(n_permutations):
                dealt = permuted(forgotten, people, random)
                null.append(measures(*out_of_fold(features, dealt, people, seed), dealt))
    table = pd.DataFrame(draws, columns=["resample", *MEASURES]).groupby("resample").mean().reset_index()
    long = table.melt("resample", var_name="measure", value_name="value")
    return long, pd.DataFrame(null, columns=list(MEASURES)).melt(var_name="measure", value_name="value")


def _arrays(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    features = np.stack(part.features.to_numpy()).astype(np.float64)
    return features, (part.split == "forget").to_numpy(), part.person_id.to_numpy().astype(str)


def _weights(rows: pd.DataFrame, n_resamples: int, seed: int) -> dict[int, pd.Series]:
    """How often each person counts: everybody once, then people drawn with replacement within either set."""
    random, found = np.random.default_rng(seed), {}
    groups = [sorted(set(rows[rows.split == side].person_id.astype(str))) for side in ("forget", "retain")]
    for index in range(n_resamples + 1):
        drawn = [
            random.multinomial(len(g), np.full(len(g), 1 / len(g))) if index else np.ones(len(g))
            for g in groups
        ]
        found[index] = pd.Series(np.concatenate(drawn), index=[*groups[0], *groups[1]])
    return found


def summary(draws: pd.DataFrame, null: pd.DataFrame, reference: str = "retrained") -> pd.DataFrame:
    """Every method's classifier beside its permuted labels and beside the retrained model's.

    Args:
        draws, null: of `tell_apart`, with the columns method and modality.
        reference: the method that the risk is read against.

    Returns:
        One row a modality, method and measure: value, low, high (95 %, people resampled), chance and chance_high (mean
        and 95th percentile of the permutations), p_value (share of permutations that do as well, the value itself counted),
        risk, risk_low, risk_high: how much more than the reference (NaN without one), people paired.
    """
    found = []
    keys = ["modality", "method", "measure"]
    series = {key: part.set_index("resample").value for key, part in draws.groupby(keys, sort=False)}
    dealt = {key: part.value for key, part in null.groupby(keys, sort=False)}
    for (modality, method, measure), values in series.items():
        other = series.get((modality, reference, measure))
        base = pd.Series(np.nan, values.index) if other is None else other
        chance = dealt.get((modality, method, measure), pd.Series(dtype=float))
        better = (1 + int((chance >= values[0]).sum())) / (1 + len(chance))
        row = [modality, method, measure, values[0], *_ends(values[1:])]
        row += [chance.mean(), chance.quantile(0.95), better]
        found.append([*row, values[0] - base[0], *_ends((values - base)[1:])])
    names = [
        *keys,
        "value",
        "low",
        "high",
        "chance",
        "chance_high",
        "p_value",
        "risk",
        "risk_low",
        "risk_high",
    ]
    return pd.DataFrame(found, columns=names)


def _ends(values: pd.Series) -> tuple[float, float]:
    return tuple(values.quantile([0.025, 0.975]).tolist())


def teller(params: BaseModel) -> Callable[[tuple[str, str]], None]:
    """What makes the unit of a (modality, method) of notebook 11 and keeps it in its folder, where `all_methods` finds it."""
    file = stage_dir(params.run_dir, "06_baselines") / "logits.parquet"
    table = read_table(file, COLUMNS, params.forget_ratio)
    kept = functools.partial(stored, stage_dir(params.run_dir, "11_telling_apart"))

    def tell(which: tuple[str, str]) -> None:
        all_methods(table[table.modality == which[0]], kept, params.n_permutations, params.seed, [which[1]])

    return tell


def load_teller(values: Mapping[str, Any]) -> Callable[[tuple[str, str]], None]:
    """`teller` in a helper (`lanes`), from the values of notebook 11's parameters."""
    return teller(subset(values))


def all_methods(
    table: pd.DataFrame,
    kept: Callable[[dict, Callable], dict[str, pd.DataFrame]],
    n_permutations: int,
    seed: int,
    order: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`tell_apart` for every method and modality; each is a unit of work.

    Args:
        table: columns COLUMNS.
        kept: keeps a unit: (key, make) -> tables.
        n_permutations, seed: see `tell_apart`.
        order: of the methods.
    """
    draws, null = [], []
    for modality in ("image_text", "text"):
        for method in order:
            rows = table[(table.method == method) & (table.modality == modality)]
            if rows.empty:
                continue

            def make(rows: pd.DataFrame = rows) -> dict[str, pd.DataFrame]:
                return dict(zip(("draws", "null"), tell_apart(rows, 200, n_permutations, seed), strict=True))

            hashed = str(pd.util.hash_pandas_object(rows.astype(str), index=False).sum())
            key = {"method": method, "modality": modality, "rows": hashed, "seed": seed, "n": n_permutations}
            found = kept(key, make)
            draws.append(found["draws"].assign(method=method, modality=modality))
            null.append(found["null"].assign(method=method, modality=modality))
    return pd.concat(draws, ignore_index=True), pd.concat(null, ignore_index=True)
