"""A pass that does no more than a loss asks for: the last network is at work before answers only."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mipnb.answers import answer_value, narrow_value
from mipnb.batches import Batch
from mipnb.models import FFN, ffns
from mipnb.parts import longest

#: what a model whose last network cannot be narrowed may raise
_REFUSALS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
#: last linear layer of a language model -> keys of a batch -> whether it may be narrowed
_tried: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], bool]] = WeakKeyDictionary()


def log_likelihood(model: nn.Module, batch: Batch) -> Tensor:
    """Of each answer, summed over its tokens: float32 (samples,), nats.

    The last language layer's feed-forward network and the head are at work before answer tokens only, where the model allows
    it: nothing else depends on them.
    """
    last = _narrow(model, batch)
    if last is None:
        return answer_value(model, batch, "log_likelihood")
    return narrow_value(model, batch, "log_likelihood", last)


def _narrow(model: nn.Module, batch: Batch) -> FFN | None:
    """The last network, if narrowing it leaves the answers' likelihood as it is; tried once on one sample, not assumed.

    Networks with updates of their own (LoRA's) are others, tried for themselves.
    """
    last = ffns(model, "text")[-1]
    tried = _tried.setdefault(last.output, {})
    key = tuple(sorted(batch))
    if key not in tried:
        tried[key] = _agrees(model, longest(batch), last)
    return last if tried[key] else None


def _agrees(model: nn.Module, one: Batch, last: FFN) -> bool:
    with torch.no_grad():
        expected = answer_value(model, one, "log_likelihood")
        try:
            found = narrow_value(model, one, "log_likelihood", last)
        except _REFUSALS:
            return False
    return torch.allclose(found, expected, rtol=2e-2, atol=1e-3)
