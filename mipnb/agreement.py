"""How much neuron paths agree: between people, modalities, and forget and retain; and what chance gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from statistics import mean

import pandas as pd

from mipnb.paths import NeuronPath, overlap


def mean_overlap(a: NeuronPath, b: NeuronPath) -> float:
    """Jaccard overlap, averaged over the layers; ValueError if the paths cannot be compared."""
    return mean(overlap(a, b))


def by_chance(a: NeuronPath, b: NeuronPath) -> float:
    """What `mean_overlap` is expected to be for random neurons of the same numbers.

    Per layer the expected intersection over the union that goes with it: for k and k of n, k / (2 n - k).
    """
    layers = []
    for size, other in zip(a.sizes, b.sizes, strict=True):
        shared = size * other / a.n_neurons
        layers.append(shared / (size + other - shared) if size + other else 1.0)
    return mean(layers)


def changed(a: NeuronPath, b: NeuronPath) -> float:
    """Share of a's neurons that b has not, all layers together, 0 to 1; ValueError if they cannot be compared."""
    overlap(a, b)
    lost = sum(len(set(one) - set(other)) for one, other in zip(a.layers, b.layers, strict=True))
    return lost / max(1, sum(a.sizes))


def overlap_rows(paths: Mapping[str, NeuronPath]) -> pd.DataFrame:
    """Everyone with everyone, for `plotting.overlap_matrix`: columns row, column, overlap."""
    rows = [(one, two, mean_overlap(paths[one], paths[two])) for one in paths for two in paths]
    return pd.DataFrame(rows, columns=["row", "column", "overlap"])


def by_name(paths: Mapping[str, NeuronPath], names: Mapping[str, str]) -> dict[str, NeuronPath]:
    """People's paths under their names in place of their IDs.

    Args:
        paths: person_id -> path.
        names: person_id -> name (`benchmarks.names_of`); somebody without one keeps the ID, and people of one name have it
            behind the name.
    """
    called = {person: names.get(person, person) for person in paths}
    often = Counter(called.values())
    return {
        name if often[name] == 1 else f"{name} ({person})": paths[person] for person, name in called.items()
    }


def among(paths: Mapping[str, NeuronPath]) -> tuple[float, float]:
    """Mean overlap of all pairs, and by chance; ValueError with fewer than two paths."""
    pairs = list(combinations(paths.values(), 2))
    if not pairs:
        raise ValueError(f"{len(paths)} path has nobody to agree with; expected at least two")
    return mean(mean_overlap(*pair) for pair in pairs), mean(by_chance(*pair) for pair in pairs)


def agreement(pairs: Mapping[str, tuple[NeuronPath, NeuronPath]]) -> pd.DataFrame:
    """One row a pair: what is compared, overlap, by chance."""
    rows = [(what, mean_overlap(*pair), by_chance(*pair)) for what, pair in pairs.items()]
    return pd.DataFrame(rows, columns=["compared", "overlap", "by_chance"])


def path_table(path: NeuronPath, label: str = "path") -> pd.DataFrame:
    """A path's neurons, one a row: path (the label), layer, neuron."""
    rows = [(label, layer, neuron) for layer, chosen in enumerate(path.layers) for neuron in chosen]
    return pd.DataFrame(rows, columns=["path", "layer", "neuron"])
