"""The losses that baselines are made of: a term on the forget set, one on the retain set, each a mean over samples.

A term is made of what the model says about a batch, and of the batch's reference: what the vanilla model said about it,
computed before training began, so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from mipnb.baselines.passes import log_likelihood
from mipnb.baselines.settings import Settings
from mipnb.batches import IGNORED, Batch
from mipnb.models import text_layers
from mipnb.steering import hidden_state


@dataclass(frozen=True)
class Term:
    """A loss of single samples, and what it needs to know of the model and of the vanilla model.

    Attributes:
        sees: (model, batch, settings) -> what the model says, a tensor with the samples first and tokens, if any, second. Two
            terms that see the same are computed in one pass over both their batches.
        loss: (what was seen, batch, reference, settings) -> float32 (samples,).
        reference: (vanilla model, batch, settings) -> tensor with the samples first, kept in CPU memory; None: nothing.
        reads: the settings that the reference depends on, so that whoever agrees in these may share it; None: it is too large
            to be kept for others.
    """

    sees: Callable[[nn.Module, Batch, Settings], Any]
    loss: Callable[[Any, Batch, Tensor | None, Settings], Tensor]
    reference: Callable[[nn.Module, Batch, Settings], Tensor] | None = None
    reads: tuple[str, ...] | None = None


def summed_nll(model: nn.Module, batch: Batch, settings: Settings | None = None) -> Tensor:
    """Negative log-likelihood of each answer, summed over its tokens: float32 (samples,)."""
    return -log_likelihood(model, batch)


def mean_nll(model: nn.Module, batch: Batch) -> Tensor:
    """The same as a mean over the answer's tokens."""
    return _mean(summed_nll(model, batch), batch)


def _mean(nll: Tensor, batch: Batch) -> Tensor:
    return nll / (batch["labels"][:, 1:] != IGNORED).sum(-1)


def _descent(nll: Tensor, batch: Batch, reference: Tensor | None, settings: Settings) -> Tensor:
    return _mean(nll, batch)


def _ascent(nll: Tensor, batch: Batch, reference: Tensor | None, settings: Settings) -> Tensor:
    return -_mean(nll, batch)


def npo_loss(nll: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Negative preference optimisation, -(2 / beta) log sigmoid(beta (NLL - NLL of the vanilla model)), by sample.

    Zhang et al. 2024, Eq. 3; log-likelihoods are summed over the answer, not averaged.
    """
    return -2 / beta * logsigmoid(beta * (nll - reference))


def _npo(nll: Tensor, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
    return npo_loss(nll, reference, settings.beta)


def words(model: nn.Module, batch: Batch, settings: Settings | None = None) -> Tensor:
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


def _kl(logprobs: Tensor, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
    return kl_loss(logprobs, reference.float(), batch["attention_mask"].bool())


def state_loss(state: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference over a sample's tokens in the mask and hidden dimensions: float32 (samples,)."""
    each = (state.float() - target.float()).square().mean(-1)  # (samples, tokens)
    return (each * mask).sum(-1) / mask.sum(-1)


def _state(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    return hidden_state(model, batch, text_layers(model)[settings.layer_index])


def _hold(state: Tensor, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
    return state_loss(state, reference, batch["attention_mask"].bool())


def rmu_direction(width: int) -> Tensor:
    """RMU's control vector before its coefficient: uniform draws from 0 to 1, normalised: float32 (width,).

    As its code draws it (Li et al. 2024), so all positive; the same for every batch and run.
    """
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(42))
    return drawn / drawn.norm()


def _steer(state: Tensor, batch: Batch, reference: Tensor, settings: Settings) -> Tensor:
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


DESCENT, ASCENT = Term(summed_nll, _descent), Term(summed_nll, _ascent)
NPO = Term(summed_nll, _npo, summed_nll, ())
KL = Term(words, _kl, words)
STEER, HOLD = Term(_state, _steer, _fixed, ("steering",)), Term(_state, _hold, _state, ("layer_index",))
ADAPTIVE = Term(_state, _steer, _adaptive, ("steering", "layer_index"))
