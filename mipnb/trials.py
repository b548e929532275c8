"""What notebook 04 asks of an edit: how it is set up, whether it is exact, what trains whom, how small it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from mipnb.artefacts import require
from mipnb.batches import Batch
from mipnb.benchmarks import Question, forget_ids, load_training, retain_ids
from mipnb.edits import Edit, same_bits
from mipnb.losses import passes_of, step_losses
from mipnb.models import save_model
from mipnb.neighbours import mixed_pictures
from mipnb.overlay import Overlay, overlay
from mipnb.paths import NeuronPath
from mipnb.pools import pools
from mipnb.rmisu import EditConfig, fixed_direction, optimiser, training_batches, unanswered

#: parameter of a run -> field of EditConfig, where the two names differ
RENAMED = {"edit_steps": "n_steps", "steering_direction": "direction"}
SAME_NAME = (
    "layer_index", "forget_tokens", "retain_tokens", "steering_scale", "forget_weight", "retain_weight",
    "ce_weight", "learning_rate",
)  # fmt: skip
#: loss -> the only weight that is not zero when it trains alone
WEIGHTS = {"L_f": "forget_weight", "L_r": "retain_weight", "L_CE": "ce_weight"}


def edit_config(params: BaseModel) -> EditConfig:
    """RMisU's settings from a run's parameters; what these do not name stays at EditConfig's default."""
    values = {name: getattr(params, name) for name in SAME_NAME}
    return EditConfig(**values, **{field: getattr(params, name) for name, field in RENAMED.items()})


def edit_questions(
    root: str | Path, ratio: int, training: str | Path = ""
) -> tuple[list[Question], list[Question]]:
    """The training questions of the people to forget, and of those to keep.

    Training views and phrasings only: nothing of Test_Set, and nobody outside the two sets (no celebrities). They come from
    the folder `training` where the unlearning rows are a data set of their own; people are matched by ID.
    """
    source = training or root
    return load_training(source, ids=forget_ids(root, ratio)), load_training(
        source, ids=retain_ids(root, ratio)
    )


def edit_batches(
    processor, params: BaseModel, forget: list[Question], retain: list[Question], near: list[Question]
) -> tuple[list[Batch], list[Batch]]:
    """What `edit` trains on: batches of the forget set, and of the retain set with the neighbours behind it.

    No more are made than the steps can visit. They wait in CPU memory; `edit` brings them to the model's device.

    Args:
        processor: the model's own.
        params: of notebook 04: batch sizes and counts, steps, seed.
        forget, retain: from `edit_questions`.
        near: their neighbours by name (see `mipnb.neighbours`), not used if `neighbour_batch` is 0; those by picture are
            made here.
    """

    def made(questions: list[Question], size: int, count: int) -> list[Batch]:
        limit = min(count, params.edit_steps or 1)
        return training_batches(processor, questions, size, limit, params.seed)

    kept = made(retain, params.retain_batch, params.n_retain_batches)
    if params.neighbour_batch:
        count = params.neighbour_batch * params.n_retain_batches
        near = near + mixed_pictures(retain, forget, count, params.seed)
        near = made(near, params.neighbour_batch, params.n_retain_batches)
        kept += unanswered(near)
    return made(forget, params.forget_batch, params.n_forget_batches), kept


def load_paths(folder: str | Path, model: nn.Module, index: int | None = None) -> list[NeuronPath]:
    """The located path of both branches, or the random one of repetition `index`, checked against the model.

    Args:
        folder: `paths/` of notebook 03.
        model: the vanilla model.
        index: which random path; None for the located one.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: a path of another model.
    """
    names = [branch if index is None else f"random_{branch}_{index}" for branch in ("text", "vision")]
    files = [require(Path(folder) / f"{name}.safetensors", made_by="03_paths") for name in names]
    return [NeuronPath.load(file, model) for file in files]


def load_edits(folder: str | Path, seeds: Iterable[int], n_random: int = 1) -> dict[tuple[str, int], Edit]:
    """The edits of notebook 04 by (method, seed): prune once, edited by seed, random for the first `n_random` seeds."""
    seeds = list(seeds)
    files = {("prune", seeds[0]): "prune"}
    files |= {("edited", seed): f"edited_{seed}" for seed in seeds}
    files |= {("random", seed): f"random_{seed}" for seed in seeds[:n_random]}
    return {
        key: Edit.load(require(Path(folder) / f"{name}.safetensors", made_by="04_editing"))
        for key, name in files.items()
    }


def bit_check(model: nn.Module, edit: Edit, at_once: int = 2**28) -> pd.Series:
    """Puts an edit into the vanilla model and takes it out again, comparing every number bit for bit.

    Args:
        model: the vanilla model.
        edit: made on it.
        at_once: bytes of weights that are copied and compared at a time (one weight at least): there is never a second
            model in memory.

    Returns:
        Counts: numbers (of the model), may_change (the edit's rows and columns), changed (while applied),
            changed_elsewhere (outside the edit's rows and columns while applied; must be 0),
            changed_after_removal (must be 0).
    """
    parts = [_bit_counts(model, edit, names) for names in _portions(model.state_dict(), at_once)]
    return pd.DataFrame(parts).sum()


def _portions(state: dict[str, Tensor], at_once: int) -> list[list[str]]:
    """Names of tensors, in groups of at most so many bytes."""
    groups: list[list[str]] = []
    room = 0
    for name, tensor in state.items():
        room -= tensor.nbytes
        if room < 0 or not groups:
            groups.append([])
            room = at_once - tensor.nbytes
        groups[-1].append(name)
    return groups


def _bit_counts(model: nn.Module, edit: Edit, names: Sequence[str]) -> dict[str, int]:
    """What `bit_check` counts, for some of the model's tensors."""
    state = model.state_dict()
    before = {name: state[name].clone() for name in names}
    places: dict[str, Tensor] = {}
    for part in edit.slices:
        if part.name in before:
            empty = torch.zeros_like(before[part.name], dtype=torch.bool, device="cpu")
            places.setdefault(part.name, empty).index_fill_(part.axis, part.neurons, True)
    with edit.applied(model):
        differs = _differences(before, model)
    changed = sum(int(mask.sum()) for mask in differs.values())
    inside = sum(int((differs[name] & mask).sum()) for name, mask in places.items() if name in differs)
    after = sum(int(mask.sum()) for mask in _differences(before, model).values())
    return {
        "numbers": sum(tensor.numel() for tensor in before.values()),
        "may_change": sum(int(mask.sum()) for mask in places.values()),
        "changed": changed,
        "changed_elsewhere": changed - inside,
        "changed_after_removal": after,
    }


def _differences(before: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Where a model's tensors differ from copies in any bit: name -> boolean mask, for those that differ."""
    now = model.state_dict()
    return {
        name: _bits_differ(old, now[name]).cpu()
        for name, old in before.items()
        if not same_bits(old, now[name])
    }


def _bits_differ(one: Tensor, other: Tensor) -> Tensor:
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    return one.contiguous().view(integer) != other.contiguous().view(integer)


def gradient_table(
    model: nn.Module,
    paths: Sequence[NeuronPath],
    forget_batches: Sequence[Batch],
    retain_batches: Sequence[Batch],
    config: EditConfig,
) -> pd.DataFrame:
    """Which loss trains which neurons: norms of the gradients at the pruned path, each loss by itself.

    Returns:
        One row a branch and layer that has neurons: branch, layer, neurons, L_f, L_r, L_CE.
    """
    columns, fixed = {}, fixed_direction(model, retain_batches, config)
    for loss, weight in WEIGHTS.items():
        alone = replace(config, **{name: float(name == weight) for name in WEIGHTS.values()})
        trained = overlay(model, paths, silent=True)
        optimiser(trained, alone)  # decides which neurons are trained at all
        forget = pools(forget_batches, 0, 0) if loss == "L_f" else []
        retain = [] if loss == "L_f" else pools(retain_batches, 0, 1)
        step_losses(model, trained, passes_of(model, forget, retain, alone), alone, fixed)
        columns[loss] = _norms(trained)
    rows = [(part.branch, part.layer, len(part.neurons)) for part in trained.weights]
    return pd.DataFrame(rows, columns=["branch", "layer", "neurons"]).assign(**columns)


def _norms(trained: Overlay) -> list[float]:
    found = [
        [tensor.grad for tensor in part.tensors() if tensor.grad is not None] for part in trained.weights
    ]
    return [float(sum(gradient.square().sum() for gradient in part)) ** 0.5 for part in found]


def gradient_sentence(table: pd.DataFrame) -> str:
    """Markdown that reads a gradient table: the layers that each loss reaches."""
    lines = []
    for loss in WEIGHTS:
        reached = table[table[loss] > 0].groupby("branch").layer.agg(list)
        where = "; ".join(f"{branch} {', '.join(map(str, layers))}" for branch, layers in reached.items())
        lines.append(f"- ${loss.replace('CE', '{CE}')}$ trains the neurons of layers: {where or 'none'}")
    return "\n".join(lines)


def sizes(files: dict[str, Path]) -> pd.DataFrame:
    """Sizes of files or folders in kilobytes (1000 bytes), and as a share of the last one's."""
    found = {
        name: sum(
            part.stat().st_size for part in ([path] if path.is_file() else Path(path).glob("*.safetensors"))
        )
        for name, path in files.items()
    }
    table = pd.DataFrame({"kB": {name: size / 1000 for name, size in found.items()}})
    return table.assign(share=table.kB / table.kB.iloc[-1])


def save_edited(model: nn.Module, processor, edit: Edit, folder: str | Path) -> Path:
    """The model with an edit in it, as a plain transformers folder; ValueError if the disk has no room for it."""
    with edit.applied(model):
        return save_model(model, processor, folder)


def question_counts(sets: dict[str, Sequence[Question]]) -> pd.DataFrame:
    """People, and questions by modality, of each set."""
    rows = {
        name: {"people": len({question.person_id for question in questions})}
        | {kind: sum(question.modality == kind for question in questions) for kind in ("text", "image_text")}
        for name, questions in sets.items()
    }
    return pd.DataFrame(rows).T
