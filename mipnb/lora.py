"""LoRA fine-tuning of the vanilla model, as in the paper: low-rank updates of the language layers, then merged.

LoRA: Hu et al., ICLR 2022; rank 8, alpha 16, dropout 0.1 as in Li et al., AAAI 2026. The merged model has the
base model's own modules and names, so that locating and editing see nothing of it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from mipnb.benchmarks import Question
from mipnb.checkpoints import Checkpoint
from mipnb.families import family
from mipnb.models import fingerprint, text_layers
from mipnb.training import answer_losses, optimize


@dataclass(frozen=True)
class LoraRecipe:
    """How the vanilla model is fine-tuned.

    Attributes:
        rank, alpha: the update of a weight is (alpha / rank) * B A, with A (rank, d_in), B (d_out, rank).
        dropout: share of the update's inputs that is dropped while training.
        learning_rate: AdamW's peak, after a warm-up of a tenth of the steps, then cosine.
        epochs: how often the larger modality's questions are seen.
        batch_size: questions of each modality a step.
        save_every: steps between two checkpoints.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1
    learning_rate: float = 1e-4
    epochs: int = 5
    batch_size: int = 4
    save_every: int = 100


#: the paper's rank, alpha and dropout
PAPER = LoraRecipe()


def lora_targets(model: nn.Module) -> list[str]:
    """Dotted names of every linear module in the language layers: attention and feed-forward, no vision, no head."""
    prefix = family(model.config.model_type).text.layers
    found = text_layers(model).named_modules(prefix=prefix)
    return [name for name, module in found if isinstance(module, nn.Linear)]


def with_updates(model: nn.Module, config: LoraConfig) -> PeftModel:
    """The model with LoRA's updates in it, in place, until `merge_and_unload`."""
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 by a name that it is about to drop
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return get_peft_model(model, config)


def n_steps(questions: Sequence[Question], recipe: LoraRecipe) -> int:
    """Steps of a fine-tuning: every step takes one batch of each modality."""
    pictured = sum(question.image is not None for question in questions)
    groups = [count for count in (pictured, len(questions) - pictured) if count]
    return recipe.epochs * max(count // min(recipe.batch_size, count) for count in groups)


def tune_lora(
    model: nn.Module,
    processor,
    questions: Sequence[Question],
    checkpoint: str | Path,
    recipe: LoraRecipe = PAPER,
    seed: int = 42,
    report: Callable | None = None,
) -> list[float]:
    """Fine-tune by LoRA and merge the updates into the weights.

    An interrupted call with the same model, questions, recipe and seed goes on from the last checkpoint, and
    ends in the same weights as if it had not been interrupted.

    Args:
        model: the base model, changed in place; left in eval mode without gradients. After an error it holds
            unmerged updates: load it again.
        processor: the model's own.
        questions: with answers, of one or both modalities.
        checkpoint: the file to go on from and to write to; the caller deletes it once the result is saved.
        recipe: rank, rates and sizes.
        seed: of the updates' start, dropout and the order of batches.
        report: called with (step, loss).

    Returns:
        The loss of every step.

    Raises:
        ValueError: no questions, a checkpoint of another training, or a loss that is not finite.
    """
    if not questions:
        raise ValueError("there is no question to fine-tune on; expected at least one")
    identity = _identity(model, questions, recipe, seed)
    torch.manual_seed(seed)
    adapted = with_updates(model, _config(model, recipe))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    kept = Checkpoint(Path(checkpoint), trained, identity, recipe.save_every)
    losses = answer_losses(model, processor, questions, recipe.batch_size, seed)
    groups = [{"params": list(trained.values()), "lr": recipe.learning_rate}]
    steps = n_steps(questions, recipe)
    model.train()
    history = optimize(groups, losses, steps, max(1, steps // 10), report, kept)
    adapted.merge_and_unload()
    model.eval().requires_grad_(False)
    return history


def _identity(
    model: nn.Module, questions: Sequence[Question], recipe: LoraRecipe, seed: int
) -> dict[str, object]:
    """What a fine-tuning depends on, as plain values; `model` as it is before the updates are in it."""
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "model": fingerprint(model),
        "questions": _digest(questions),
    }


def _config(model: nn.Module, recipe: LoraRecipe) -> LoraConfig:
    targets = lora_targets(model)
    return LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=targets
    )


def _digest(questions: Sequence[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(repr((question.prompt, question.answer)).encode() + (question.image or b""))
    return digest.hexdigest()[:16]
