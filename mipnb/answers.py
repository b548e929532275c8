"""The differentiated value: how probable a model finds the right answers, and the positions that it is read at.

F = exp(mean log-probability of the answer tokens) is the `probability` of Eq. 2, G = log p(Y | I, T) the
`log_likelihood` of Eq. 5. Nothing but the positions before answer tokens counts, so nothing else needs logits, nor the last
language layer's feed-forward network.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mipnb.batches import IGNORED, answer_logprob
from mipnb.models import FFN
from mipnb.replay import replaced

TARGETS = ("probability", "log_likelihood")


def answer_value(model: nn.Module, batch: Mapping[str, Any], target: str) -> Tensor:
    """The differentiated value of each sample: float32 (batch,).

    "probability" is F = exp(mean log-probability of the answer tokens); "log_likelihood" is G = log p(Y | I,
    T), the sum of the same terms. Tokens whose label is -100 (prompt, padding) do not count, and logits are
    made for the positions before answer tokens only, where the model allows it.
    """
    logits, labels = answer_logits(model, batch)
    mean = answer_logprob(logits, labels)
    return mean.exp() if target == "probability" else mean * (labels != IGNORED).sum(-1)


def answer_logits(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits before answer tokens, float32 (batch, columns, vocabulary), with labels (batch, columns): column j + 1 off j."""
    columns, labels = _answer_columns(batch["labels"])
    return _logits(model, batch, columns).float(), labels


def _answer_columns(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positions before an answer token of some sample, the last one twice, and the labels that fit them."""
    columns = (labels[:, 1:] != IGNORED).any(0).nonzero()[:, 0]
    first = labels.new_full((len(labels), 1), IGNORED)  # answer_logprob reads label j + 1 off logits j
    return torch.cat([columns, columns[-1:]]), torch.cat([first, labels[:, columns + 1]], dim=1)


def _logits(model: nn.Module, batch: Mapping[str, Any], columns: Tensor) -> Tensor:
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    known = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in known else {}
    if "logits_to_keep" in known:
        return model(**inputs, **options, logits_to_keep=columns).logits
    return model(**inputs, **options).logits[:, columns]


def narrow_value(model: nn.Module, batch: Mapping[str, Any], target: str, last: FFN) -> Tensor:
    """The same value, with the last network and the head at work before each sample's own answer tokens only.

    Args:
        model: with an output embedding, and `logits_to_keep`.
        batch: of a language model, with labels.
        target: see `answer_value`.
        last: network of the last language layer.
    """
    answered = batch["labels"][:, 1:] != IGNORED
    columns = answered.any(0).nonzero()[:, 0]
    with (
        _narrow_network(model, last, answer_positions(batch["labels"])),
        _narrow_head(model, answered[:, columns]),
    ):
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        logits = model(
            **inputs, use_cache=False, logits_to_keep=columns
        ).logits  # (answer tokens, vocabulary)
    targets = batch["labels"][:, 1:][answered]
    losses = cross_entropy(logits.float().T[None], targets[None], reduction="none")[
        0
    ]  # summed as answer_logprob sums
    counts = answered.sum(-1)
    total = -losses.new_zeros(len(counts)).index_add(0, answered.nonzero()[:, 0], losses)
    return (total / counts).exp() if target == "probability" else total


def answer_positions(labels: Tensor) -> Tensor:
    """Each sample's positions before its answer tokens, filled up with others to one number: int64 (batch, most)."""
    answered = (labels[:, 1:] != IGNORED).int()
    ranked = answered.argsort(dim=1, descending=True, stable=True)
    return ranked[:, : int(answered.sum(-1).max())]


@contextmanager
def _narrow_network(model: nn.Module, ffn: FFN, positions: Tensor) -> Iterator[None]:
    """A network works at some positions (batch, few) of each sample, and gives zeros at the others."""
    block = _block(model, ffn)
    own = block.forward

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        index = positions[..., None].expand(-1, -1, hidden.shape[-1])
        part = own(hidden.gather(1, index), *args, **kwargs)  # (batch, few, hidden)
        return part.new_zeros(hidden.shape).scatter(1, index, part)

    with replaced({block: forward}):
        yield


@contextmanager
def _narrow_head(model: nn.Module, answered: Tensor) -> Iterator[None]:
    """The head makes logits (answer tokens, vocabulary) of the states that `answered` (batch, columns) marks."""
    head = model.get_output_embeddings()
    own = head.forward
    with replaced({head: lambda hidden: own(hidden[answered])}):
        yield


def _block(model: nn.Module, ffn: FFN) -> nn.Module:
    """The module below the layer that holds the whole network, and no other linear layer.

    Raises:
        ValueError: there is none.
    """
    name = ffn.output_name.removeprefix(ffn.name + ".").partition(".")[0]
    block = model.get_submodule(f"{ffn.name}.{name}")
    linear = {module for module in block.modules() if isinstance(module, nn.Linear)}
    if linear != {ffn.output, *ffn.inputs} or block is ffn.output:
        raise ValueError(f"{ffn.name} has no module that holds its feed-forward network alone")
    return block
