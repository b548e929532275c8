"""A net of two layers with two neurons each, small enough to work everything out by hand.

The batch brings no input at all: the activations are constants, and the answer's probability is

    F = 0.3 + (w1 - w2 / 2) * (w3 + w4),   w = (0.6, 0.4) in the first layer, (0.5, 0.3) in the second,

so that F = 0.62, and 0.3 where either layer is silent. Neuron w2 works against the answer.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from mipnb.batches import IGNORED, Batch
from mipnb.models import FFN

ACTIVATIONS = ((0.6, 0.4), (0.5, 0.3))
OFFSET = 0.3


class Toy(nn.Module):
    """F as the probability of token 0, so that everything that takes a language model takes this too.

    Attributes:
        ffns: a record a layer, for `attribute`, `gated` and `zeroed`.
    """

    def __init__(self):
        super().__init__()
        self.outs = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in ACTIVATIONS)
        for out in self.outs:
            nn.init.eye_(out.weight)
        self.requires_grad_(False).eval()
        self.ffns = [
            FFN(f"toy.{index}", (), out, (), f"toy.{index}.out", nn.Identity())
            for index, out in enumerate(self.outs)
        ]

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        """Logits (batch, tokens, 2); the input only says how many samples and tokens there are."""
        shape = (*input_ids.shape, 2)
        first, second = (
            out(torch.tensor(values).expand(shape))[:, 0]
            for out, values in zip(self.outs, ACTIVATIONS, strict=True)
        )  # (batch, 2) each: the first position answers
        probability = OFFSET + (first[:, 0] - first[:, 1] / 2) * second.sum(-1)
        pair = torch.stack([probability.log(), torch.log1p(-probability)], dim=-1)
        return SimpleNamespace(logits=pair[:, None].expand(shape))


def toy_batch() -> Batch:
    """One question of one token and an answer of one token."""
    return {"input_ids": torch.zeros(1, 2, dtype=torch.long), "labels": torch.tensor([[IGNORED, 0]])}


def toy_probability(model: Toy) -> float:
    """F as it is now: under `zeroed` that of the silenced model."""
    with torch.no_grad():
        return model(toy_batch()["input_ids"]).logits.softmax(-1)[0, 0, 0].item()
