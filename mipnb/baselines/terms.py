"""The losses that baselines are made of: a term on the forget set, one on the retain set, each a mean over samples.

A term takes the model as it is, a batch, and the batch's reference: what the vanilla model said about it, computed
before training began, so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from mipnb.answers import answer_value
from mipnb.baselines.settings import Settings
from mipnb.batches import IGNORED, Batch
from mipnb.models import text_layers
from mipnb.steering import hidden_state


@dataclass(frozen=True)
class Term:
    """A loss of single samples, and what it needs to know of the vanilla model.

    Attributes:
        loss: (model, batch, reference, settings) -> float32 (samples,).
        reference: (vanilla model, batch, settings) -> tensor with the samples first, kept in CPU memory; None: nothing.
        reads: the settings that the reference depends on, so that whoever agrees in these may share it; None: it is too large
            to be kept for others.
    """

    loss: Callable[[nn.Module, Batch, Tensor | None, Settings], Tensor]
    reference: Callable[[nn.Module, Batch, Settings], Tensor] | None = None
    reads: tuple[str, ...] | None = None


def summed_nll(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of each answer, summed over its tokens: float32 (samples,)."""
    return -answer_value(model, batch, "log_likelihood")


def mean_nll(model: nn.Module, batch: Batch) -> Tensor:
    """The same as a mean over the answer's tokens."""
    return summed_nll(model, batch) / (batch["labels"][:, 1:] != IGNORED).sum(-1)


def _descent(model: nn.Module, batch: Batch, reference: Tensor | None, settings: Settings) -> Tensor:
    return mean_nll(model, batch)


def _ascent(model: nn.Module, batch: Batch, reference: Tensor | None, settings: Settings) -> Tensor:
    return -mean_nll(model, batch)


def npo_loss(nll: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Negative preference optimisation, -(2 / beta) log sigmoid(beta (NLL - NLL of the vanilla model)), by sample.

    Zhang et al. 2024, Eq. 3; log-likelihoods are summed over the answer, not averaged.
    """
    return -2 / beta * logsigmoid(beta * (nll - reference))


def _npo(model: nn.Module, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
    return npo_loss(summed_nll(model, batch), reference, settings.beta)


def _vanilla_nll(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    return summed_nll(model, batch)


def words(model: nn.Module, batch: Batch) -> Tensor:
    """Log-probabilities of every word at every position: float32 (samples, tokens, vocabulary)."""
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    return log_softmax(model(**inputs, use_cache=False).logits.float(), dim=-1)


def kl_loss(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """KL(reference || model), a mean over each sample's tokens in the mask: float32 (samples,).

    Args:
        logprobs, reference: (samples, tokens, vocabulary).
        mask: bool (samples, tokens), at least one token a sample.
    """
    each = (reference.exp() * (reference - logprobs)).sum(-1)  # (samples, tokens)
    return (each * mask).sum(-1) / mask.sum(-1)


def _kl(model: nn.Module, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
    return kl_loss(words(model, batch), reference.float(), batch["attention_mask"].bool())


def _vanilla_words(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    return words(model, batch)


def state_loss(state: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference over a sample's tokens in the mask and hidden dimensions: float32 (samples,)."""
    each = (state.float() - target.float()).square().mean(-1)  # (samples, tokens)
    return (each * mask).sum(-1) / mask.sum(-1)


def _state(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    return hidden_state(model, batch, text_layers(model)[settings.layer_index])


def _hold(model: nn.Module, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
    return state_loss(_state(model, batch, settings), reference, batch["attention_mask"].bool())


def rmu_direction(width: int) -> Tensor:
    """RMU's control vector before its coefficient: uniform draws from 0 to 1, normalised: float32 (width,).

    As its code draws it (Li et al. 2024), so all positive; the same for every batch and run.
    """
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(42))
    return drawn / drawn.norm()


def _steer(model: nn.Module, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
    state = _state(model, batch, settings)
    target = reference[:, None, None] * rmu_direction(state.shape[-1]).to(state.device)
    return state_loss(state, target, batch["attention_mask"].bool())


def _fixed(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    """RMU's coefficient, the same for all samples."""
    return torch.full((len(batch["input_ids"]),), settings.steering)


def _adaptive(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    """Adaptive RMU's: a factor times the mean norm of the vanilla model's states of the batch (Dang et al. 2025)."""
    mask = batch["attention_mask"].bool()
    norm = _state(model, batch, settings).float().norm(dim=-1)[mask].mean()
    return (settings.steering * norm).expand(len(mask)).clone()


DESCENT, ASCENT = Term(_descent), Term(_ascent)
NPO = Term(_npo, _vanilla_nll, ())
KL = Term(_kl, _vanilla_words)
STEER, HOLD = Term(_steer, _fixed, ("steering",)), Term(_hold, _state, ("layer_index",))
ADAPTIVE = Term(_steer, _adaptive, ("steering", "layer_index"))
