"""The recipe of the shipped models: base (tower, describing, celebrities, filler), then vanilla (fine-tuned on ft_Data).

The vision tower first learns to read traits off random faces, so that its feed-forward networks carry shape; it never sees a
fictitious person before the fine-tune.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mipnb.artefacts import atomic_path
from mipnb.batches import decode_image
from mipnb.benchmarks import Question, load_training
from mipnb.models import checksums, load_model, load_processor
from mipnb.pocket.facts import ATTRIBUTES, FIRST_NAMES, LAST_NAMES
from mipnb.pocket.model import new_model, new_processor, new_tokenizer
from mipnb.pocket.portraits import TRAITS, Traits, describe, draw_traits, encode_jpeg, portrait
from mipnb.precision import mixed_precision
from mipnb.training import optimize, tune

#: everything the recipe depends on beside the data and the seed
RECIPE = {
    "faces": 8000, "tower_steps": 600, "tower_batch": 64, "tower_lr": 1.5e-3,
    "base_steps": 400, "tune_steps": 1200, "batch_size": 32, "lr": 2e-3, "tower_share": 0.4,
}  # fmt: skip
Report = Callable[[int, float], None]
Face = tuple[Traits, bytes]


def faces(count: int, seed: int) -> list[tuple[tuple[int, ...], bytes]]:
    """Random faces, none of them anybody: (trait values, encoded portrait)."""
    random = Random(f"{seed} faces")
    drawn = [draw_traits(random) for _ in range(count)]
    return [(traits, encode_jpeg(portrait(traits, random))) for traits in drawn]


def filler() -> Iterator[Question]:
    """General text: what kind of thing each value is."""
    for attribute in ATTRIBUTES:
        for value in attribute.values:
            for prompt in (
                f"What kind of word is {value}?",
                f"Is {value} a word for a person's {attribute.key}?",
            ):
                yield Question("filler", "FT", prompt, f"The word {value} can be a person's {attribute.key}.")


def corpus(questions: list[Question]) -> Iterator[str]:
    """Text to train the tokenizer on: every question, and names and values with and without a leading space."""
    yield from (text for question in questions for text in (question.prompt, question.answer))
    words = [*FIRST_NAMES, *LAST_NAMES, *(value for attribute in ATTRIBUTES for value in attribute.values)]
    yield from (text for word in words for text in (word, f" {word}") for _ in range(20))


class TraitReader(nn.Module):
    """The throw-away head: trait logits from the flattened, normalised states of the tower's last block.

    Flattened because the tower has no absolute position to pool over; without the normalisation nothing is learned.
    """

    def __init__(self, patches: int, hidden: int):
        super().__init__()
        self.sizes = [len(values) for values in TRAITS.values()]
        self.read = nn.Sequential(
            nn.LayerNorm(patches * hidden), nn.Linear(patches * hidden, sum(self.sizes))
        )

    def loss(self, states: torch.Tensor, traits: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over traits; states (pictures, patches, hidden), traits int64 (pictures, traits)."""
        parts = self.read(states.flatten(1).float()).split(self.sizes, dim=-1)
        return sum(cross_entropy(part, target) for part, target in zip(parts, traits.T, strict=True)) / len(
            parts
        )


def train_tower(
    model: nn.Module, processor, drawn: list[Face], recipe: dict, seed: int, report=None
) -> list[float]:
    """Train the vision tower alone to read traits off faces; returns the loss of every step."""
    packed = processor.image_processor([decode_image(image) for _, image in drawn], return_tensors="pt")
    grid, traits = packed["image_grid_thw"], torch.tensor([traits for traits, _ in drawn])
    pixels = packed["pixel_values"].half().unflatten(0, (len(drawn), -1))  # (pictures, patches, dim)
    torch.manual_seed(seed)
    tower, reader = model.model.visual, TraitReader(pixels.shape[1], model.config.vision_config.hidden_size)
    tower.train().requires_grad_(True)

    def losses(step: int) -> torch.Tensor:
        """The reader's loss on tower_batch pictures drawn at random, a scalar with a gradient; the step plays no part."""
        rows = torch.randint(len(drawn), (recipe["tower_batch"],))
        with mixed_precision():
            states = tower(pixels[rows].float().flatten(0, 1), grid_thw=grid[rows]).last_hidden_state
        return reader.loss(states.unflatten(0, (len(rows), -1)), traits[rows])

    parameters = [*tower.patch_embed.parameters(), *tower.blocks.parameters(), *reader.parameters()]
    return optimize(
        [{"params": parameters, "lr": recipe["tower_lr"]}], losses, recipe["tower_steps"], report=report
    )


def make_base(
    root: str | Path, out: str | Path, seed: int = 42, recipe: dict = RECIPE, report=None
) -> list[float]:
    """Train the base model from scratch and save it: traits, then describing, celebrities and filler together.

    Args:
        root: the pocket benchmark; only base_Data is trained on (ft_Data gives the tokenizer its words).
        out: model folder to write (bfloat16, with processor and checksums).
        seed: of the weights, faces and order.
        recipe: see RECIPE.
        report: called with (step, loss).

    Returns:
        The loss of every step, tower first.
    """
    known = load_training(root, "base_Data")
    tokenizer = new_tokenizer(corpus([*known, *load_training(root, "ft_Data")[::5]]))
    model, processor = new_model(tokenizer, seed), new_processor(tokenizer)
    drawn = faces(recipe["faces"], seed)
    history = train_tower(model, processor, drawn, recipe, seed, report)
    described = [
        Question("face", "FT", "Describe this portrait.", describe(traits), image=i) for traits, i in drawn
    ]
    questions = [*known, *filler(), *described]
    history += tune(
        model, processor, questions, recipe["base_steps"], **_rates(recipe), seed=seed, report=report
    )
    save(model, processor, out)
    return history


def make_vanilla(
    root: str | Path,
    base: str | Path,
    out: str | Path,
    seed: int = 42,
    recipe: dict = RECIPE,
    report=None,
    ids: Iterable[str] | None = None,
) -> list[float]:
    """Fine-tune the base model on ft_Data, with base_Data among it so that celebrities stay known, and save it.

    Args:
        root, base, out: benchmark, base model, and the folder to write.
        seed, recipe, report: see `make_base`.
        ids: only these people of ft_Data: with the retain set's, the model that unlearning is held against.

    Returns:
        The loss of every step.
    """
    model, processor = load_model(base), load_processor(base)
    questions = [*load_training(root, "ft_Data", ids), *load_training(root, "base_Data")]
    history = tune(
        model, processor, questions, recipe["tune_steps"], **_rates(recipe), seed=seed, report=report
    )
    save(model, processor, out)
    return history


def _rates(recipe: dict) -> dict:
    return {
        "learning_rate": recipe["lr"],
        "tower_share": recipe["tower_share"],
        "batch_size": recipe["batch_size"],
    }


def save(model: nn.Module, processor, out: str | Path) -> None:
    """Save a model folder in bfloat16 with its processor and checksums.json, whole or not at all."""
    with atomic_path(out) as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "checksums.json").write_text(checksums(folder))
