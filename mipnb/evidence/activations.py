"""What neurons do over many questions: sums over positions, by kind of position, and means to put in a neuron's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mipnb.answers import answer_logits
from mipnb.batches import IGNORED, Batch
from mipnb.evidence.asked import Ablation, Asked
from mipnb.hooks import captured, zeroed
from mipnb.models import FFN

#: kinds of a language model's positions; those of a vision tower are all of kind 0
KINDS = ("prompt", "picture", "answer")
PADDING = -1
Neurons = Sequence[Sequence[int]]


def position_kinds(model: nn.Module, batch: Batch) -> Tensor:
    """The kind of every position of the language model, an index of KINDS or PADDING: int64 (batch, tokens).

    A position is of the answer if it predicts an answer token: the last one of the prompt is, the end token is not.
    """
    labels = batch["labels"]
    kinds = torch.zeros_like(labels)
    token = getattr(getattr(model, "config", None), "image_token_id", None)
    if token is not None and "input_ids" in batch:
        kinds[batch["input_ids"] == token] = KINDS.index("picture")
    answers = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)  # position t predicts label t + 1
    kinds[answers] = KINDS.index("answer")
    if "attention_mask" in batch:
        kinds[batch["attention_mask"] == 0] = PADDING
    return kinds


def kinds_for(model: nn.Module, batch: Batch, branch: str) -> Tensor | None:
    """`position_kinds` for the text branch; None for the vision branch, whose positions are all alike."""
    return position_kinds(model, batch) if branch == "text" else None


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over positions, by kind.

    Attributes:
        count: positions, float64 (kinds,).
        plain, absolute, squares, above: of z, |z|, z^2 and [|z| > tau], float64 (kinds, layers, n_neurons).
    """

    count: Tensor
    plain: Tensor
    absolute: Tensor
    squares: Tensor
    above: Tensor

    def means(self) -> Tensor:
        """Mean activation by kind; where a kind never came up, that of all positions: float32 (kinds, layers, n)."""
        overall = self.plain.sum(0) / self.count.sum()
        by_kind = self.plain / self.count.clamp(min=1)[:, None, None]
        return torch.where((self.count > 0)[:, None, None], by_kind, overall).float()


def activation_sums(
    model: nn.Module, asked: Asked, ffns: Sequence[FFN], branch: str, tau: float = 0.1
) -> Sums:
    """Sums of a branch's activations over all questions; padding does not count.

    Args:
        model: in eval mode.
        asked: questions; for the vision branch those with pictures.
        ffns: the branch's networks.
        branch: "text" or "vision".
        tau: from which |z| on a neuron counts as active (MANU's).
    """
    totals: list[Tensor] = []
    for batch in asked.batches:
        with torch.inference_mode(), captured(ffns) as seen:
            answer_logits(model, batch)
        kinds = kinds_for(model, batch, branch)
        parts = _batch_sums(seen, kinds, tau)
        totals = parts if not totals else [one + other for one, other in zip(totals, parts, strict=True)]
    return Sums(*totals)


def _batch_sums(seen: Sequence[Tensor], kinds: Tensor | None, tau: float) -> list[Tensor]:
    flat = [activation.double().flatten(0, -2) for activation in seen]  # (positions, n_neurons) a layer
    alike = torch.zeros(len(flat[0]), dtype=torch.long, device=flat[0].device)
    kinds = alike if kinds is None else kinds.flatten()
    member = torch.stack([(kinds == index).double() for index in range(len(KINDS))])  # (kinds, positions)
    terms = (lambda z: z, torch.abs, torch.square, lambda z: (z.abs() > tau).double())
    sums = [torch.stack([member @ term(z) for z in flat], 1).cpu() for term in terms]
    return [member.sum(1).cpu(), *sums]


def removing(ffns: Sequence[FFN], neurons: Neurons) -> Ablation:
    """The ablation that silences neurons of each layer at every position."""
    return lambda batch: zeroed(ffns, neurons)


def keeping(model: nn.Module, ffns: Sequence[FFN], branch: str, neurons: Neurons, means: Tensor) -> Ablation:
    """The ablation that leaves only the given neurons as they are, all others being held at their means.

    Args:
        model: asked for the kinds of positions.
        ffns: the branch's networks.
        branch: "text" or "vision".
        neurons: per layer, those kept.
        means: from `Sums.means`, of other people's questions.
    """
    return lambda batch: averaged(ffns, neurons, means, kinds_for(model, batch, branch))


@contextmanager
def averaged(
    ffns: Sequence[FFN], kept: Neurons, means: Tensor, kinds: Tensor | None = None
) -> Iterator[None]:
    """Hold all neurons but the kept ones at their mean for the kind of position, while the context lasts.

    Args:
        ffns: the networks.
        kept: per network the neurons left alone.
        means: float32 (kinds, layers, n_neurons).
        kinds: of each position, int64 in the activation's shape without neurons; None: all of kind 0.

    Raises:
        ValueError: another number of layers than networks.
    """
    if not len(kept) == means.shape[1] == len(ffns):
        raise ValueError(
            f"neurons of {len(kept)} layers and means of {means.shape[1]} for {len(ffns)} networks; expected one each"
        )
    with ExitStack() as stack:
        for layer, (ffn, neurons) in enumerate(zip(ffns, kept, strict=True)):
            hook = _mean_hook(ffn, neurons, means[:, layer], kinds)
            stack.callback(ffn.output.register_forward_pre_hook(hook).remove)
        yield


def _mean_hook(ffn: FFN, neurons: Sequence[int], means: Tensor, kinds: Tensor | None):
    keep = torch.zeros(ffn.n_neurons, dtype=torch.bool)
    keep[list(neurons)] = True

    def hook(module: nn.Module, args: tuple) -> tuple:
        activation = args[0]
        table = means.to(activation)
        at_mean = table[0] if kinds is None else table[kinds.clamp(min=0)]
        return (torch.where(keep.to(activation.device), activation, at_mean), *args[1:])

    return hook
