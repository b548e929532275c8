"""What RMisU (Eq. 11-16) is given: settings, batches, a direction, and the optimiser of the path's neurons.

The frozen model of Eq. 12-15 is the same model with the overlay switched off: there is no second copy in
memory, and no gradient buffer but those of the path's own rows and columns. `losses` has the losses.

Text neurons above `layer_index` get no gradient from L_f and L_r, which are measured below them; L_CE alone
trains them (`train_above`), or they stay as pruning left them. All vision neurons lie below, and get all
three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from mipnb.batches import Batch, batches, encode
from mipnb.benchmarks import Question
from mipnb.models import text_layers
from mipnb.overlay import Overlay
from mipnb.steering import DISTANCES, FORGET_TOKENS, MASKS, end_direction

DIRECTIONS = ("input", "shared", "end")
SCHEDULES = ("constant", "linear", "cosine")
LOSSES = ("loss_forget", "loss_retain", "loss_ce")


@dataclass(frozen=True)
class EditConfig:
    """How RMisU trains: total = forget_weight * L_f + retain_weight * L_r + ce_weight * L_CE (Eq. 16).

    Attributes:
        layer_index: the decoder layer, from 0, at whose output L_f and L_r are measured.
        n_steps: steps of AdamW, without weight decay.
        learning_rate: at the start.
        steering_scale: lambda of Eq. 13.
        forget_weight, retain_weight (gamma), ce_weight: the weights of the three losses.
        retain_tokens: where L_r acts on batches with answers: "all", "answer" or "prompt"; those without (neighbours) are
            held at all tokens. If the last decoder layer is steered, no other reads the prompt's states, and "answer" holds
            what is said.
        forget_tokens: where L_f acts: "all", "answer", "prompt" or "onset" (see `steering.token_weights`).
        distance: "relative" or "dimension" (see `steering`).
        train_above: whether L_CE trains the text neurons above layer_index.
        prune_first: start from the silenced neurons, not from the vanilla ones.
        direction: "input": each forget input is steered its own random way (Eq. 12); "shared": all the same random
            way, as in RMU (Li et al. 2024); "end": all to where answers end (`steering.end_direction`), so that nothing
            is said in place of something broken. Inputs steered each its own way average out: states shrink toward zero
            and keep what they said, which the next normalisation brings back.
        redraw: draw every input's direction anew at every visit; else it keeps one.
        schedule: of the learning rate, down to 0: "constant", "linear" or "cosine".
        clip_norm: largest norm of the gradient.
    """

    layer_index: int = 1
    n_steps: int = 150
    learning_rate: float = 5e-3
    steering_scale: float = 1.0
    forget_weight: float = 1.0
    retain_weight: float = 3.0
    ce_weight: float = 3.0
    forget_tokens: str = "all"
    retain_tokens: str = "all"
    distance: str = "relative"
    train_above: bool = True
    prune_first: bool = True
    direction: str = "input"
    redraw: bool = False
    schedule: str = "cosine"
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        choices = {"forget_tokens": FORGET_TOKENS, "retain_tokens": MASKS, "distance": DISTANCES}
        choices |= {"direction": DIRECTIONS, "schedule": SCHEDULES}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {allowed}")
        for name in (f.name for f in fields(self) if f.type in ("float", "int")):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}, expected a finite number of at least 0")

    @property
    def weights(self) -> dict[str, float]:
        """What each loss counts in the total."""
        return dict(zip(LOSSES, (self.forget_weight, self.retain_weight, self.ce_weight), strict=True))


def training_batches(
    processor, questions: Sequence[Question], size: int, limit: int, seed: int, device: str = "cpu"
) -> list[Batch]:
    """Encoded batches for `edit`, each of one modality and of like length, so that there is little padding.

    Args:
        processor: the model's own.
        questions: with answers, any mixture.
        size: text questions a batch; with pictures, which cost more than twice as much, half as many (at least 1).
        limit: at most so many batches a modality (more than the steps of an edit are never seen); which, the
            seed says.
        seed: of the draw.
        device: where the tensors go.
    """
    random = np.random.default_rng(seed)
    shuffled = [questions[i] for i in random.permutation(len(questions))]
    kept = []
    for modality, part in (("text", size), ("image_text", max(1, size // 2))):
        drawn = [question for question in shuffled if question.modality == modality][: part * limit]
        ordered = sorted(drawn, key=lambda question: len(question.prompt) + len(question.answer))
        kept += batches(ordered, part)
    return [encode(processor, group, device=device) for group in kept]


def unanswered(batches: Sequence[Batch]) -> list[Batch]:
    """The batches without labels: only their hidden states are kept (see `neighbours`)."""
    return [{key: tensor for key, tensor in batch.items() if key != "labels"} for batch in batches]


def fixed_direction(model: nn.Module, retain_batches: Sequence[Batch], config: EditConfig) -> Tensor | None:
    """The direction that the model itself gives (direction "end"): float32 (1, 1, hidden); None where it is drawn."""
    if config.direction != "end":
        return None
    return end_direction(model, retain_batches, text_layers(model)[config.layer_index])


def trainable(trained: Overlay) -> list[Tensor]:
    return [tensor for part in trained.weights for tensor in part.tensors() if tensor.requires_grad]


def optimiser(trained: Overlay, config: EditConfig) -> tuple:
    """AdamW over the overlay's trained tensors, and its schedule."""
    for part in trained.weights:
        above = part.branch == "text" and part.layer > config.layer_index
        for tensor in part.tensors():
            tensor.requires_grad_(config.train_above or not above)
    if not trainable(trained):
        raise ValueError(
            f"no neuron to train: all lie above layer_index {config.layer_index}; set train_above"
        )
    adamw = torch.optim.AdamW(trainable(trained), lr=config.learning_rate, weight_decay=0.0)
    shapes = {
        "constant": lambda step: 1.0,
        "linear": lambda step: 1 - step / max(1, config.n_steps),
        "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / max(1, config.n_steps))),
    }
    return adamw, torch.optim.lr_scheduler.LambdaLR(adamw, shapes[config.schedule])
