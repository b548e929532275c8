"""Passes that do no more than a loss asks for: two batches at once, and the last network at work before answers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mipnb.answers import answer_value, narrow_value
from mipnb.batches import _PICTURES, IGNORED, Batch
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


def joined(batches: Sequence[Batch]) -> Batch:
    """The samples of several batches of one modality as one batch: shorter ones are padded on the right, as answers are.

    Args:
        batches: encoded with answers, with the same keys; pictures' tensors have pictures or patches first.
    """
    if len(batches) == 1:
        return batches[0]
    width = max(batch["input_ids"].shape[1] for batch in batches)
    wide = [_wide(batch, width) for batch in batches]
    return {key: torch.cat([batch[key] for batch in wide]) for key in wide[0]}


def _wide(batch: Mapping[str, Tensor], width: int) -> Batch:
    """So many tokens a sample. Padding repeats the last token, which is never a picture's, under a mask of zeros."""
    shape, ids = batch["input_ids"].shape, batch["input_ids"]
    by_token = {key for key, tensor in batch.items() if tensor.shape == shape and key not in _PICTURES}
    fill = {"labels": IGNORED}
    found = dict(batch)
    for key in by_token:
        found[key] = pad(batch[key], (0, width - shape[1]), value=fill.get(key, 0))
    found["input_ids"] = torch.cat([ids, ids[:, -1:].expand(-1, width - shape[1])], dim=1)
    return found
