"""The beginning that several prompts share (instructions and a picture), gone through once for all of them.

Questions about one picture begin with the same tokens: its features and the keys and values of these tokens are computed
once, and every question goes on from there. Answers are those of the whole prompts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from mipnb.batches import Batch, encode, prompt_tokens
from mipnb.benchmarks import Question
from mipnb.models import input_device


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values of the beginnings of some groups of prompts, a row a group, padded left.

    Attributes:
        ids, mask: int64 (groups, tokens).
        cache: keys and values (groups, heads, tokens, width) of every layer.
        shift: int64 (groups, 1): a later token's position less the number of tokens before it. A picture of Qwen's
            takes fewer positions than tokens; elsewhere it is 0.
    """

    ids: Tensor
    mask: Tensor
    cache: Cache
    shift: Tensor

    def extended(self, rows: Sequence[int], tails: Sequence[Sequence[int]], pad_token_id: int) -> dict:
        """A batch whose prompts begin with these groups' tokens and go on with their own.

        Args:
            rows: each prompt's group.
            tails: each prompt's further tokens, at least one.
            pad_token_id: what shorter ones are padded with, on the left.

        Returns:
            What the model's `generate` is given (the model itself: see `unseen`): input_ids, attention_mask, position_ids
            int64 (prompts, tokens) of the whole prompts, and the cache as past_key_values, which belongs to the caller.
        """
        index = torch.tensor(rows)  # on the CPU: layers may lie on several devices
        ids, mask = (tensor.to(self.ids) for tensor in _padded_left(tails, pad_token_id))
        mask = torch.cat([self.mask[index], mask], dim=1)  # (prompts, shared + own tokens)
        positions = (mask.cumsum(1) - 1).clamp_min(0) + self.shift[index]
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(index)
        ids = torch.cat([self.ids[index], ids], dim=1)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}


def unseen(batch: dict) -> dict:
    """What the model itself is given of an extended batch: the tokens that its cache does not hold, under the whole mask."""
    seen = batch["past_key_values"].get_seq_length()
    return batch | {name: batch[name][:, seen:] for name in ("input_ids", "position_ids")}


def shared_prefix(
    model: nn.Module, processor, groups: Sequence[Sequence[Question]]
) -> tuple[Prefix, list[list[list[int]]]] | None:
    """Go through what the prompts of each group have in common.

    Args:
        model: in eval mode.
        processor: the model's own.
        groups: questions of one modality; those of a group have one picture.

    Returns:
        The prefix, a row a group, and each question's remaining tokens, at least one; or None if a group's prompts
        cannot be told apart from their picture in this way: it does not come first, or tokens are joined to it, or
        the model forgets what lies far back (sliding windows), or questions are asked after examples.
    """
    if any(question.shots for group in groups for question in group):
        return None
    batch = encode(processor, [group[0] for group in groups], with_answer=False, device=input_device(model))
    whole = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    rows = [_token_rows(processor, group, first) for group, first in zip(groups, whole, strict=True)]
    if None in rows:
        return None
    shared = [_n_shared(prompts) for prompts, _ in rows]
    if any(length < start for length, (_, start) in zip(shared, rows, strict=True)):
        return None
    prefix = _prefill(model, _cut(batch, shared))
    if any(type(layer) is not DynamicLayer for layer in prefix.cache.layers):
        return None
    tails = [[ids[length:] for ids in prompts] for length, (prompts, _) in zip(shared, rows, strict=True)]
    return prefix, tails


def _token_rows(processor, group: Sequence[Question], first: list[int]) -> tuple[list[list[int]], int] | None:
    """All tokens of each of a group's prompts, and where the picture ends, from those of its first prompt.

    The placeholder of the picture becomes in every prompt what it became in the first one.
    """
    plain = prompt_tokens(processor, group)
    if group[0].image is None:
        return plain, 0
    same = _n_same([plain[0], first])  # up to the placeholder, with it where it becomes several
    after = plain[0][same:]
    start = len(first) - len(after)
    if not after or first[start:] != after or any(ids[:same] != plain[0][:same] for ids in plain):
        return None
    return [first[:start] + ids[same:] for ids in plain], start


def _n_same(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with alike."""
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False)))


def _n_shared(prompts: Sequence[list[int]]) -> int:
    """How many tokens the prompts share, one at least of each being left over."""
    return min(_n_same(prompts), *(len(ids) - 1 for ids in prompts))


def _cut(batch: Batch, lengths: Sequence[int]) -> Batch:
    """The first so many tokens of each row of a batch that is padded left, padded left again; pictures stay."""
    width, kept = max(lengths), dict(batch)
    starts = (batch["attention_mask"] == 0).sum(1).tolist()
    for key, tensor in batch.items():
        if tensor.shape == batch["input_ids"].shape:
            kept[key] = tensor[:, :width].clone()
            for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
                kept[key][row, width - length :] = tensor[row, start : start + length]
                kept[key][row, : width - length] = 0
    return kept


def _prefill(model: nn.Module, batch: Batch) -> Prefix:
    """One pass over the shared tokens."""
    mask = batch["attention_mask"]
    own_positions = "pixel_values" in batch and hasattr(
        model.model, "rope_deltas"
    )  # Qwen's: made by the model
    given = {} if own_positions else {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
    with torch.inference_mode():
        cache = model(**batch, **given, use_cache=True, logits_to_keep=1).past_key_values
    shift = model.model.rope_deltas.to(mask) if own_positions else torch.zeros_like(mask[:, :1])
    return Prefix(batch["input_ids"], mask, cache, shift)


def _padded_left(rows: Iterable[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, int64 (rows, longest)."""
    rows = [list(row) for row in rows]
    width = max(map(len, rows))
    ids = [[pad_token_id] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
