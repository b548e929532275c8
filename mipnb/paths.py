"""Neuron paths: the neurons chosen per layer of a branch, per sample and over a forget set; compared, drawn,
kept.

A forget set's path is made from per-sample scores (`attribution.Scores`): first a ranking adjusts them by
what the retain set uses, then an aggregate turns samples into one choice a layer.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.ranking import AGGREGATES, RANKINGS, adjusted, aggregated, votes
from mipnb.records import load_record, save_record
from mipnb.scores import Scores
from mipnb.searches import top_neurons

FORMAT = "mipnb-path-1"


@dataclass(frozen=True)
class NeuronPath:
    """Chosen neurons of one branch of one model.

    Attributes:
        branch: "text" or "vision".
        layers: per layer the neurons, ascending; a layer may be empty.
        n_neurons: neurons that a layer of the branch has.
        fingerprint: of the model, see `models.fingerprint`.
        benchmark: what the path was located on.
        parameters: how it was made.
    """

    branch: str
    layers: tuple[tuple[int, ...], ...]
    n_neurons: int
    fingerprint: str
    benchmark: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, neurons in enumerate(self.layers):
            if list(neurons) != sorted(set(neurons)) or any(not 0 <= n < self.n_neurons for n in neurons):
                raise ValueError(
                    f"layer {index} of a {self.branch} path holds {neurons}; expected distinct neurons, "
                    f"ascending, in 0..{self.n_neurons - 1}"
                )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of neurons per layer."""
        return tuple(len(neurons) for neurons in self.layers)

    def check(self, model: nn.Module) -> None:
        """Raise ValueError, naming both fingerprints, if the path belongs to another model."""
        found = models.fingerprint(model)
        if found != self.fingerprint:
            raise ValueError(
                f"this {self.branch} path is of model {self.fingerprint}, the model given is {found}: "
                f"neurons of one model mean nothing in another. Load that model, or locate anew"
            )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: neurons per layer, all else as JSON in its header."""
        tensors = {
            f"layer.{index:04d}": torch.tensor(n, dtype=torch.int64) for index, n in enumerate(self.layers)
        }
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "layers"}
        return save_record(path, FORMAT, tensors, fields)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> NeuronPath:
        """Read what `save` wrote, and check it against a model if one is given.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged, another kind of file, or a path of another model.
        """
        tensors, fields = load_record(path, FORMAT)
        found = cls(layers=tuple(tuple(tensors[name].tolist()) for name in sorted(tensors)), **fields)
        if model is not None:
            found.check(model)
        return found


def select(
    forget_scores: Scores,
    retain_scores: Scores | None = None,
    top_k: int = 5,
    ranking: str = "forget",
    aggregate: str = "mean",
    benchmark: str = "",
) -> NeuronPath:
    """One path for a forget set.

    Args:
        forget_scores: scores of the forget questions.
        retain_scores: scores of retain questions, for all rankings but "forget".
        top_k: neurons per layer (per sample for "union").
        ranking: how a sample's scores are set against what people to keep use (`mipnb.ranking`): "forget" (not at all),
            "difference" (less their mean score), "contrast" (less the share that those use), "ratio" (divided by it) or
            "projected" (less what moves those).
        aggregate: how samples make one path: "mean", "vote" or "people_vote" (how many samples, or people, have a neuron
            among their best), "people_turns" (everybody's best, then everybody's second), or "union" (all samples' own
            top_k, so that a layer may get more than top_k). Ties go by the mean.
        benchmark: what the scores were computed on; kept in the path.

    A layer in which no forget question has a score (`Scores.silent_layers`) gets no neurons, with a warning: there is
    nothing to choose by.

    Raises:
        ValueError: unknown ranking or aggregate, top_k larger than the layer, retain scores missing or of
            another model, branch or way of scoring.
    """
    if ranking not in RANKINGS or aggregate not in AGGREGATES:
        raise ValueError(f"ranking {ranking!r}, aggregate {aggregate!r}; known: {RANKINGS}, {AGGREGATES}")
    chosen = _chosen(forget_scores, adjusted(forget_scores, retain_scores, ranking), top_k, aggregate)
    if silent := forget_scores.silent_layers:
        warn_of_silent(forget_scores.branch, silent)
        chosen = [neurons[:0] if layer in silent else neurons for layer, neurons in enumerate(chosen)]
    parameters = forget_scores.parameters | {"ranking": ranking, "aggregate": aggregate, "path_top_k": top_k}
    return _path(forget_scores, chosen, benchmark, parameters)


def warn_of_silent(branch: str, layers: list[int]) -> None:
    """A warning for layers without a score, so that a path has no neurons there."""
    warnings.warn(
        f"every score of {branch} layers {layers} is 0: nothing to choose by, so the path has no neurons there",
        stacklevel=3,
    )


def sample_paths(scores: Scores, top_k: int, benchmark: str = "") -> dict[str, NeuronPath]:
    """Each sample's own path, by name: its top_k neurons of every layer, none where all its scores are 0.

    Raises:
        ValueError: two samples of one name, or a top_k larger than the layer.
    """
    if len(set(scores.names)) != len(scores.names):
        raise ValueError(
            f"{len(scores.names)} samples share {len(set(scores.names))} names; give each its own name"
        )
    parameters = scores.parameters | {"path_top_k": top_k}
    sizes = scores.scored.long() * top_k
    picked = [
        [best[:size] for best, size in zip(*rows, strict=True)]
        for rows in zip(top_neurons(scores.values, top_k), sizes, strict=True)
    ]
    return {
        name: _path(scores, layers, benchmark, parameters | {"sample": name})
        for name, layers in zip(scores.names, picked, strict=True)
    }


def random_path(like: NeuronPath, seed: int) -> NeuronPath:
    """Neurons drawn uniformly from all of each layer, as many as `like` has there."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randperm(like.n_neurons, generator=generator)[:size].tolist() for size in like.sizes)
    layers = tuple(tuple(sorted(neurons)) for neurons in drawn)
    parameters = {"random": True, "seed": seed}
    return NeuronPath(like.branch, layers, like.n_neurons, like.fingerprint, like.benchmark, parameters)


def overlap(a: NeuronPath, b: NeuronPath) -> list[float]:
    """Per layer |a and b| / |a or b| (Jaccard), in [0, 1]; 1 where both are empty.

    Raises:
        ValueError: paths of different branches, models or shapes, whose neurons cannot be compared.
    """
    for name in ("branch", "fingerprint", "n_neurons"):
        if getattr(a, name) != getattr(b, name):
            raise ValueError(
                f"paths of different {name} cannot be compared: {getattr(a, name)}, {getattr(b, name)}"
            )
    if len(a.layers) != len(b.layers):
        raise ValueError(f"paths of different number of layers: {len(a.layers)}, {len(b.layers)}")
    pairs = [(set(first), set(second)) for first, second in zip(a.layers, b.layers, strict=True)]
    return [len(first & second) / len(first | second) if first | second else 1.0 for first, second in pairs]


def _chosen(forget_scores: Scores, values: Tensor, top_k: int, aggregate: str) -> list[Tensor]:
    """Neurons of each layer, from adjusted scores (samples, layers, n_neurons)."""
    if aggregate == "union":
        return [layer.nonzero()[:, 0] for layer in votes(values, forget_scores.scored, top_k)]
    return list(top_neurons(aggregated(values, forget_scores, aggregate, top_k), top_k))


def _path(scores: Scores, chosen: list[Tensor] | Tensor, benchmark: str, parameters: dict) -> NeuronPath:
    layers = tuple(tuple(sorted(neurons.tolist())) for neurons in chosen)
    return NeuronPath(scores.branch, layers, scores.n_neurons, scores.fingerprint, benchmark, parameters)
