"""Nets so small that scores can be worked out by hand, and tiny random models of two families."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from tiny_qwen import END, EOS, IMAGE, PAD, START, TEXT, VISION
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from mipnb.attribution import attribute
from mipnb.batches import IGNORED
from mipnb.models import FFN
from mipnb.scores import Scores

UNGATED = {
    key: VISION[key]
    for key in ("depth", "num_heads", "patch_size", "spatial_merge_size", "temporal_patch_size")
}


def as_ffn(output: nn.Linear, inputs: tuple = (), name: str = "toy") -> FFN:
    """A record for any last linear layer."""
    return FFN(name, inputs, output, tuple(f"{name}.in" for _ in inputs), f"{name}.out", nn.Identity())


def two_way_logits(probability: Tensor, tokens: int) -> Tensor:
    """Logits (batch, tokens, 2) under which token 0 has the given probability at every position."""
    pair = torch.stack([probability.log(), torch.log1p(-probability)], dim=-1)
    return pair[:, None].expand(-1, tokens, -1)


class HandMade(nn.Module):
    """F = head(activations): the batch brings every layer's activations a0, a1, ... (batch, tokens, neurons)
    itself.

    `head` maps the list of gated activations to a probability (batch,), so that F and G = log F are known in
    closed form.
    """

    def __init__(self, neurons: int, layers: int, head: Callable[[list[Tensor]], Tensor]):
        super().__init__()
        self.outs = nn.ModuleList(nn.Linear(neurons, neurons, bias=False) for _ in range(layers))
        for out in self.outs:
            nn.init.eye_(out.weight)
        self.head = head
        self.ffns = [as_ffn(out, name=f"hand.{index}") for index, out in enumerate(self.outs)]

    def forward(self, **batch: Tensor) -> SimpleNamespace:
        outs = [out(batch[f"a{index}"]) for index, out in enumerate(self.outs)]
        return SimpleNamespace(logits=two_way_logits(self.head(outs), outs[0].shape[1]))


def hand_batch(*activations: list, answer_tokens: int = 1) -> dict[str, Tensor]:
    """A batch for `HandMade`: nested lists (batch, tokens, neurons) a layer; the last tokens answer."""
    batch = {f"a{index}": torch.tensor(a, dtype=torch.float32) for index, a in enumerate(activations)}
    labels = torch.full(batch["a0"].shape[:2], IGNORED)
    labels[:, labels.shape[1] - answer_tokens :] = 0
    return batch | {"labels": labels}


class Chain(nn.Module):
    """Residual tanh layers that mix tokens: h += c + mean(c), c = tanh(h W_l) V_l; F = sigmoid(mean(h) v)."""

    def __init__(self, layers: int = 3, hidden: int = 4, neurons: int = 5, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.ins = nn.ModuleList(nn.Linear(hidden, neurons) for _ in range(layers))
        self.outs = nn.ModuleList(nn.Linear(neurons, hidden, bias=False) for _ in range(layers))
        self.read = nn.Parameter(torch.randn(hidden))
        for out in self.outs:
            nn.init.normal_(out.weight, std=1.0)
        self.requires_grad_(False).eval()
        self.ffns = [as_ffn(out, (into,)) for into, out in zip(self.ins, self.outs, strict=True)]

    def forward(self, hidden: Tensor) -> SimpleNamespace:
        for into, out in zip(self.ins, self.outs, strict=True):
            change = out(torch.tanh(into(hidden)))
            hidden = hidden + change + change.mean(1, keepdim=True)
        return SimpleNamespace(logits=two_way_logits((hidden.mean(1) @ self.read).sigmoid(), hidden.shape[1]))


def chain_batch(samples: int = 3, tokens: int = 4, hidden: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """Random inputs for `Chain`; the last token is the answer."""
    torch.manual_seed(seed)
    labels = torch.full((samples, tokens), IGNORED)
    labels[:, -1] = 0
    return {"hidden": torch.randn(samples, tokens, hidden), "labels": labels}


def tiny_vl(family: str = "qwen2_5_vl", dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """A random Qwen2.5-VL (gated FFNs in both branches) or Qwen2-VL (fc1, fc2 in the tower), 3 + 3 layers."""
    torch.manual_seed(seed)
    ids = {"image_token_id": IMAGE, "vision_start_token_id": START, "vision_end_token_id": END}
    ids |= {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": EOS, "tie_word_embeddings": True}
    text = TEXT | {"bos_token_id": EOS, "eos_token_id": EOS}
    if family == "qwen2_5_vl":
        vision = VISION | {"depth": 3, "fullatt_block_indexes": [2]}
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        )
    else:
        vision = UNGATED | {
            "depth": 3,
            "embed_dim": 32,
            "hidden_size": 32,
            "mlp_ratio": 1,
            "initializer_range": 0.3,
        }
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids))
    return model.to(dtype).eval().requires_grad_(False)


def questions(grids: list[tuple[int, int]], lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """One question a sample, right-padded, the last three real tokens its answer.

    Args:
        grids: height and width of each picture in patches (multiples of 2); (0, 0) throughout for no
            pictures.
        lengths: text tokens of each sample.
        seed: sample i's text and picture depend on seed and i alone, not on the rest of the batch.
    """
    rows = [
        _question(h, w, length, 1000 * seed + index)
        for index, ((h, w), length) in enumerate(zip(grids, lengths, strict=False))
    ]
    width = max(len(row["input_ids"]) for row in rows)
    batch = {
        key: torch.stack([_pad(row[key], width, fill) for row in rows])
        for key, fill in (
            ("input_ids", PAD),
            ("labels", IGNORED),
            ("attention_mask", 0),
            ("mm_token_type_ids", 0),
        )
    }
    if grids[0] == (0, 0):
        return batch
    grid = torch.tensor([[1, h, w] for h, w in grids])
    return batch | {"pixel_values": torch.cat([row["pixels"] for row in rows]), "image_grid_thw": grid}


def _question(height: int, width: int, length: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(2, 90, (length,), generator=generator)
    image = torch.full((height * width // 4,), IMAGE)
    ids = torch.cat([torch.tensor([START]), image, torch.tensor([END]), text]) if height else text
    labels = torch.where(torch.arange(len(ids)) >= len(ids) - 3, ids, IGNORED)
    dim = 3 * VISION["patch_size"] ** 2 * VISION["temporal_patch_size"]
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixels": torch.randn(height * width, dim, generator=generator),
    }


def _pad(row: Tensor, width: int, fill: int) -> Tensor:
    return torch.cat([row, torch.full((width - len(row),), fill)])


# Hand-made: 2 samples, 3 tokens, 2 neurons; neuron 1 of sample 0 is silent at token 0
ACTIVATION = [[[0.1, 0.0], [0.2, 0.1], [0.0, 0.3]], [[0.3, 0.1], [0.1, 0.1], [0.1, 0.1]]]
SUMS = torch.tensor([[0.3, 0.4], [0.5, 0.3]])  # over tokens
WEIGHT = torch.tensor([0.8, -0.4])


def toy_scores(model, batch, **choices) -> Scores:
    """Scores of a toy by greedy, top_k 1, unless told."""
    return attribute(
        model,
        batch,
        "text",
        **({"top_k": 1, "search": "greedy"} | choices),
        ffns=model.ffns,
        fingerprint="toy",
    )


def linear_head(outs: list[Tensor]) -> Tensor:
    """F = 0.5 + sum over layers, tokens, neurons of weight * activation."""
    return 0.5 + sum((out @ WEIGHT).sum(1) for out in outs)


def square_head(outs: list[Tensor]) -> Tensor:
    return (outs[0] @ WEIGHT).sum(1) ** 2 + 0.1


def product_head(outs: list[Tensor]) -> Tensor:
    """F = product over layers of the sum of all activations."""
    return torch.stack([out.sum((1, 2)) for out in outs]).prod(0)


def decay_head(outs: list[Tensor]) -> Tensor:
    """log F is linear in the activations."""
    return torch.exp(-1 - (outs[0] @ WEIGHT).sum(1))
