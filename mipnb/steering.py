"""Representation misdirection: what RMisU steers, and how its losses are measured (Eq. 12-15).

RMU: Li et al. 2024 (WMDP); adaptive coefficient: Dang et al., AAAI 2025; for neuron paths: Li et al., AAAI
    2026.

Both losses are means over tokens, and one token's squared distance is divided either by its frozen squared
norm ("relative": the first step's L_f is then about 1 + steering_scale^2 in every model) or by the number of
hidden dimensions ("dimension"). So weights carry over between models, batch sizes and lengths; Eq. 14-15
print the bare squared norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mipnb.batches import IGNORED, Batch, answer_logprob, to_device
from mipnb.models import input_device, is_dispatched

MASKS = ("all", "answer", "prompt")
FORGET_TOKENS = (*MASKS, "onset")
DISTANCES = ("relative", "dimension")


class _Reached(Exception):
    """Ends a forward pass that need not go on."""


def _state(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _run(model: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    """Logits (batch, positions, words) at these positions (int64) of every sample."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return model(**inputs, use_cache=False, logits_to_keep=positions).logits


def hidden_state(model: nn.Module, batch: Batch, layer: nn.Module) -> Tensor:
    """A decoder layer's output (batch, tokens, hidden); the layers above it are not computed.

    In a model that accelerate has dispatched they are: its hooks, which put weights and inputs back after each
    module, have to run to the end.
    """
    seen: list[Tensor] = []
    dispatched = is_dispatched(model)

    def stop(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        seen.append(_state(output))
        if not dispatched:
            raise _Reached

    handle = layer.register_forward_hook(stop)
    try:
        _run(model, batch, batch["input_ids"].new_zeros(1))
    except _Reached:
        pass
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"the model's forward pass never reached layer {type(layer).__name__}")
    return seen[0].to(batch["input_ids"].device)


def hidden_state_and_logprob(model: nn.Module, batch: Batch, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A decoder layer's output and the answers' mean log-probability, from one pass.

    Returns:
        (batch, tokens, hidden), and float32 (batch,), NaN for a sample without an answer. Logits are computed only where
        some sample's answer is predicted.
    """
    labels = batch["labels"]
    answered = (labels != IGNORED).any(1)
    logprob = labels.new_full(answered.shape, math.nan, dtype=torch.float32)
    if not answered.any():
        return hidden_state(model, batch, layer), logprob
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, arguments, output: seen.append(_state(output)))
    asked = (labels[:, 1:] != IGNORED).any(0).nonzero().flatten()  # positions that predict an answer token
    try:
        logits = _run(model, batch, torch.cat([asked, asked[-1:]]))  # answer_logprob leaves the last one out
    finally:
        handle.remove()
    labels = torch.cat([labels[:, :1], labels[:, asked + 1]], 1)
    if not answered.all():  # whose mean over no token would be no number, nor would gradients
        logits, labels = logits[answered], labels[answered]
    logprob = logprob.masked_scatter(answered, answer_logprob(logits, labels))
    return seen[0].to(batch["input_ids"].device), logprob


def token_mask(batch: Batch, which: str) -> Tensor:
    """The tokens that carry the knowledge: bool (batch, tokens), padding never included.

    Args:
        batch: encoded with answers.
        which: "answer": every answer token, and the last prompt token, at which the first answer token is
            predicted; "prompt": all other tokens (the picture, the name, the question); "all": both.
    """
    if which not in MASKS:
        raise ValueError(f"a mask of tokens {which!r} is not one of {MASKS}")
    real = batch["attention_mask"].bool()
    if which == "all":
        return real
    answer = batch["labels"] != IGNORED
    answer[:, :-1] |= answer[:, 1:].clone()
    return real & (answer if which == "answer" else ~answer)


def token_weights(batch: Batch, which: str) -> Tensor:
    """What each token counts in a mean over tokens: float32 (batch, tokens), 0 where it does not count.

    Args:
        batch: encoded with answers.
        which: a choice of `token_mask`, all its tokens alike; or "onset": its "answer", the tokens at which answers begin
            (where the first answer token is predicted) counting as much as all of these together. Whether anything is said
            is decided there, and an answer that opens with a name copies it from the question.
    """
    if which not in FORGET_TOKENS:
        raise ValueError(f"forget_tokens {which!r} is not one of {FORGET_TOKENS}")
    if which != "onset":
        return token_mask(batch, which).float()
    answer = token_mask(batch, "answer")
    begins = answer & (answer.cumsum(1) == 1)
    return answer / answer.sum() + begins / begins.sum()


def random_direction(hidden: int, seed: Sequence[int], rows: int = 1) -> Tensor:
    """Directions u, uniform on the unit sphere (Eq. 12: a normalised Gaussian): float32 (rows, 1, hidden).

    Args:
        hidden: dimensions.
        seed: integers that fix the draw, made on the CPU so that it is the same on every device.
        rows: one a forget input (Eq. 12), or 1 for all (RMU's choice).
    """
    state = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    generator = torch.Generator().manual_seed(state)
    return unit(torch.randn(rows, 1, hidden, generator=generator))


def end_direction(model: nn.Module, batches: Sequence[Batch], layer: nn.Module, at_most: int = 16) -> Tensor:
    """The mean direction of the vanilla states in which answers end: float32 (1, 1, hidden), of length 1.

    These are the states that predict the last token of an answer, its end mark. Steered there, the model has nothing to say.

    Args:
        model: the vanilla model.
        batches: of people to keep; those without answers are passed over.
        layer: the decoder layer that is steered.
        at_most: batches that are looked at, spread over those there are.

    Raises:
        ValueError: no batch has answers.
    """
    answered = [batch for batch in batches if "labels" in batch]
    if not answered:
        raise ValueError(
            "direction 'end' is where answers end: no retain batch has answers; give some, or use 'shared'"
        )
    total = 0
    for batch in answered[:: math.ceil(len(answered) / at_most)]:
        batch = to_device(batch, input_device(model))
        with torch.no_grad():
            state = hidden_state(model, batch, layer).float()  # (batch, tokens, hidden)
        labels = batch["labels"]
        last = (
            labels.shape[1] - 2 - (labels != IGNORED).flip(1).int().argmax(1)
        )  # predicts the last answer token
        total = total + unit(state[torch.arange(len(last)), last]).sum(0).cpu()
    return unit(total)[None, None]


def unit(tensor: Tensor) -> Tensor:
    """Vectors (..., hidden) of length 1."""
    return tensor / tensor.norm(dim=-1, keepdim=True)


def steering_target(frozen: Tensor, scale: float, direction: Tensor) -> Tensor:
    """v_f = scale * ||h_frozen||_2 * u (Eq. 13), the norm token by token: float32 (batch, tokens, hidden).

    Args:
        frozen: vanilla hidden states (batch, tokens, hidden).
        scale: the adaptive coefficient's factor, lambda.
        direction: u, of length 1: (batch, 1, hidden), or (1, 1, hidden) for all inputs.
    """
    return scale * frozen.float().norm(dim=-1, keepdim=True) * direction.to(frozen.device)


def distance(
    state: Tensor, target: Tensor, frozen: Tensor, weights: Tensor, kind: str = "relative"
) -> Tensor:
    """Weighted mean over tokens of ||state - target||^2 / (||frozen||^2, or hidden): a float32 scalar.

    Args:
        state, target, frozen: (batch, tokens, hidden).
        weights: float32 (batch, tokens), from `token_weights`, or a mask: bool, at least one token.
        kind: "relative" or "dimension".
    """
    if kind not in DISTANCES:
        raise ValueError(f"distance {kind!r} is not one of {DISTANCES}")
    chosen = weights > 0
    state, target, frozen = (
        tensor[chosen].float() for tensor in (state, target, frozen)
    )  # (chosen tokens, hidden)
    squared = (state - target).square().sum(-1)
    unit = frozen.square().sum(-1).clamp_min(1e-12) if kind == "relative" else frozen.shape[-1]
    weights = weights[chosen].float()
    return (squared / unit * weights).sum() / weights.sum()
