"""Training a model to answer: AdamW with warm-up and cosine decay, loss on answer tokens only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

import torch
from torch import nn

from mipnb.batches import Batch, answer_logprob, encode
from mipnb.benchmarks import Question
from mipnb.checkpoints import Checkpoint
from mipnb.models import input_device, vision_tower
from mipnb.precision import mixed_precision
from mipnb.progress import progress


def schedule(step: int, steps: int, warmup: int, floor: float = 0.1) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def optimize(
    groups: list[dict],
    losses: Callable[[int], torch.Tensor],
    steps: int,
    warmup: int = 50,
    report: Callable | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[float]:
    """Minimise `losses(step)` for `steps` steps; returns the loss of every step.

    Args:
        groups: AdamW parameter groups, each with its peak "lr".
        losses: the step's loss, a scalar with a gradient.
        steps: how many.
        warmup: steps of linear warm-up.
        report: called with (step, loss) after each step.
        checkpoint: where to go on from, and to write to, so that an interrupted training can be resumed.

    Raises:
        ValueError: a loss is not finite, or the checkpoint is of another training.
    """
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps, warmup))
    parameters = [parameter for group in groups for parameter in group["params"]]
    history = checkpoint.restore(optimizer, scheduler) if checkpoint else []
    with progress(steps, "training", len(history)) as bar:
        for step in range(len(history), steps):
            loss = losses(step)
            if not torch.isfinite(loss):
                raise ValueError(f"loss is {loss.item()} at step {step}: lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            history.append(loss.item())
            if report:
                report(step, history[-1])
            if checkpoint and (checkpoint.due(step) or step == steps - 1):
                checkpoint.save(optimizer, scheduler, history)
            bar.update()
    return history


def shuffled(questions: Sequence[Question], size: int, seed: int) -> Iterator[list[Question]]:
    """Endless shuffled batches, epoch after epoch, of one modality's questions; ValueError if they fill not even one."""
    if not 0 < size <= len(questions):
        raise ValueError(f"a batch of {size} cannot be drawn from {len(questions)} questions")
    random, order = Random(seed), list(questions)
    while True:
        random.shuffle(order)
        yield from (order[start : start + size] for start in range(0, len(order) - size + 1, size))


def answer_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the answer tokens, averaged over each answer, then over the batch."""
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    with mixed_precision():
        logits = model(**inputs).logits
    return -answer_logprob(logits, batch["labels"]).mean()


def parameter_groups(model: nn.Module, learning_rate: float, tower_share: float) -> list[dict]:
    """AdamW groups: the vision tower learns at `tower_share` of the rate."""
    tower = list(vision_tower(model).parameters())
    own = {id(parameter) for parameter in tower}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in own]
    return [{"params": rest, "lr": learning_rate}, {"params": tower, "lr": learning_rate * tower_share}]


def tune(
    model: nn.Module,
    processor,
    questions: Iterable[Question],
    steps: int,
    learning_rate: float = 2e-3,
    tower_share: float = 0.4,
    batch_size: int = 32,
    seed: int = 42,
    report: Callable | None = None,
) -> list[float]:
    """Full fine-tuning; every step takes a batch of each modality, of `batch_size` questions each.

    Returns:
        The loss of every step. The model is changed in place and left in eval mode without gradients.
    """
    losses = answer_losses(model, processor, questions, batch_size, seed)
    model.train().requires_grad_(True)
    history = optimize(parameter_groups(model, learning_rate, tower_share), losses, steps, report=report)
    model.eval().requires_grad_(False)
    return history


def answer_losses(
    model: nn.Module, processor, questions: Iterable[Question], batch_size: int, seed: int
) -> Callable[[int], torch.Tensor]:
    """The loss of every step in turn: its mean over one batch of each modality that the questions have.

    Called with the step's number: batches of steps left out (a resumed training) are drawn and passed over.
    """
    questions = list(questions)
    groups = [[q for q in questions if q.modality == modality] for modality in ("text", "image_text")]
    streams = [shuffled(group, min(batch_size, len(group)), seed) for group in groups if group]
    drawn = itertools.count()

    def losses(step: int) -> torch.Tensor:
        """The loss of a step, a float32 scalar with a gradient: mean over modalities, answers and their tokens, nats."""
        while next(drawn) < step:
            for stream in streams:
                next(stream)
        device = input_device(model)
        batches = (encode(processor, next(stream), device=device) for stream in streams)
        return sum(answer_loss(model, batch) for batch in batches) / len(streams)

    return losses
