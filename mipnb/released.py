"""The authors' released score tensors in place of our own locating: read, checked, made a path, converted.

A released file is one tensor (samples, layers, neurons) of scores, bfloat16, written by `torch.save`; its name says
branch, people and model (`text_ja_all_mllmu_<model>.pt`, `multi_fisher_forget05_clear_<model>.pt`), and nothing in it
says which model and which questions it is of. So its name only proposes the branch: the shape has to be the model's,
and the number of samples that of the benchmark's training questions. Rows are in the order of those questions.
The scores are rounded, so neurons may tie; the lower index then wins, and a path says how often that was.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.artefacts import atomic_path, sha256, under_root
from mipnb.benchmarks import Question, forget_ids, load_training
from mipnb.families import family, lookup
from mipnb.locating import IMAGE_TEXT, TEXT, of_modality, question_names
from mipnb.paths import NeuronPath, select
from mipnb.scores import Scores

#: how released files of a branch begin
PREFIXES = {"text": "text_ja_", "vision": "multi_fisher_"}
_MODALITIES = {"text": TEXT, "vision": IMAGE_TEXT}


class Size(NamedTuple):
    """A branch of a model: layers that an answer depends on, neurons a layer, and all layers there are.

    The two counts differ where a tower's features leave it before its end (LLaVA-1.5); a released file may have either.
    """

    layers: int
    neurons: int
    all_layers: int


def branch_sizes(model: nn.Module) -> dict[str, Size]:
    """The size of each branch of a model, which may be empty (`sources.empty_model`)."""
    sizes = {}
    for branch in PREFIXES:
        networks = models.ffns(model, branch)
        there = lookup(model.config, family(model.config.model_type).branch(branch).count)
        sizes[branch] = Size(len(networks), networks[0].n_neurons, there)
    return sizes


@dataclass(frozen=True, eq=False)
class Released:
    """One released file, checked against model and benchmark.

    Attributes:
        file: where it is.
        branch: "text" or "vision".
        values: (samples, layers, neurons), in the file's dtype, mapped from disk: nothing is read until used. Layers
            that no answer depends on are left out.
        names: per sample "<person>/<how manieth>", see `locating.question_names`.
        forget_rows: which samples are of people to forget.
    """

    file: Path
    branch: str
    values: Tensor
    names: tuple[str, ...]
    forget_rows: tuple[int, ...]

    def scores(self, fingerprint: str, rows: Sequence[int] | None = None) -> Scores:
        """The scores as our own kind of object, float32: of some samples, or of all."""
        rows = range(len(self.names)) if rows is None else rows
        made = {"released": self.file.name, "sha256": sha256(self.file), "dtype": _dtype_name(self.values)}
        values = self.values[list(rows)].float()
        return Scores(self.branch, values, tuple(self.names[row] for row in rows), fingerprint, made)

    def path(self, fingerprint: str, top_k: int, benchmark: str = "") -> NeuronPath:
        """Each forget sample's own top_k of every layer, united; with the share of samples x layers that tie."""
        scores = self.scores(fingerprint, self.forget_rows)
        found = select(scores, top_k=top_k, ranking="forget", aggregate="union", benchmark=benchmark)
        parameters = found.parameters | {"ties": _ties(scores.values, top_k)}
        return NeuronPath(found.branch, found.layers, found.n_neurons, fingerprint, benchmark, parameters)


def _ties(values: Tensor, top_k: int) -> float:
    """Share of samples x layers whose last chosen neuron scores no more than the first one left out."""
    if top_k == values.shape[-1]:
        return 0.0
    best = values.topk(top_k + 1, dim=-1).values  # (samples, layers, top_k + 1), descending
    return (best[..., -1] == best[..., -2]).float().mean().item()


def _dtype_name(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def branch_of(file: str | Path) -> str:
    """The branch that a released file's name says; ValueError if it says none."""
    for branch, prefix in PREFIXES.items():
        if Path(file).name.startswith(prefix):
            return branch
    raise ValueError(f"{Path(file).name} begins with none of {', '.join(PREFIXES.values())}: rename it")


def read_tensor(file: str | Path) -> Tensor:
    """A released file's tensor, mapped from disk, with no code of the file run (`weights_only`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, holds something else than one tensor of three dimensions of floating point.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} does not exist; expected a released score tensor (.pt)")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{file} is damaged or holds more than tensors, which is not loaded ({reason}); download it again"
        ) from None
    if not isinstance(found, Tensor) or found.dim() != 3 or not found.is_floating_point():
        told = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{file} holds {told}; expected one tensor of scores (samples, layers, neurons)")
    return found


def read_released(
    file: str | Path, branch: str, sizes: Mapping[str, Size], root: str | Path, ratio: int
) -> Released:
    """One released file, checked.

    Args:
        file: the .pt file.
        branch: "text" or "vision".
        sizes: of the model, from `branch_sizes`.
        root: the benchmark.
        ratio: forget ratio, percent.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a tensor of scores; another shape than the branch has; a number of samples that is neither
            that of all training questions nor that of the forget set's; a file of another forget ratio.
    """
    values = read_tensor(file)
    _check_shape(file, values, branch, sizes)
    named = re.search(r"_forget(\d+)_", Path(file).name)
    if named and int(named[1]) != ratio:
        raise ValueError(f"{file} is of forget ratio {int(named[1])}, by its name; the run's is {ratio}")
    questions = _questions_of(file, len(values), branch, root, ratio)
    forgotten = set(forget_ids(root, ratio))
    rows = [row for row, question in enumerate(questions) if question.person_id in forgotten]
    values = values[:, : sizes[branch].layers]
    return Released(Path(file), branch, values, tuple(question_names(questions)), tuple(rows))


def _check_shape(file: str | Path, values: Tensor, branch: str, sizes: Mapping[str, Size]) -> None:
    fits = [name for name, size in sizes.items() if _fits(values, size)]
    if branch not in fits:
        hint = f"it fits the {fits[0]} branch" if fits else "it is of another model"
        raise ValueError(
            f"{file} has {values.shape[1]} layers x {values.shape[2]} neurons; the model's {branch} branch has "
            f"{sizes[branch].layers} x {sizes[branch].neurons}: {hint}"
        )


def _fits(values: Tensor, size: Size) -> bool:
    return values.shape[1] in (size.layers, size.all_layers) and values.shape[2] == size.neurons


def _questions_of(
    file: str | Path, n_samples: int, branch: str, root: str | Path, ratio: int
) -> list[Question]:
    """The training questions that a file's samples are of, by their number, in the benchmark's own order."""
    groups = {"all": load_training(root), "forget": load_training(root, ids=forget_ids(root, ratio))}
    fitting = {
        f"{people}, {modality or 'both modalities'}": of_modality(group, modality) if modality else group
        for people, group in groups.items()
        for modality in (_MODALITIES[branch], None)
    }
    for questions in fitting.values():
        if len(questions) == n_samples:
            return questions
    counts = "; ".join(f"{len(questions)} ({what})" for what, questions in fitting.items())
    raise ValueError(
        f"{file} has {n_samples} samples; the training questions of {root} at forget ratio {ratio} are {counts}: "
        f"is it of another benchmark or ratio?"
    )


def find_released(
    folder: str | Path, sizes: Mapping[str, Size], root: str | Path, ratio: int
) -> dict[str, Released]:
    """The one fitting file of each branch in a folder, which may hold files of other models and benchmarks.

    Args:
        folder: as downloaded; sub-folders are looked into.
        sizes, root, ratio: see `read_released`.

    Raises:
        FileNotFoundError: no such folder, or no file of a branch in it.
        ValueError: no file of a branch fits (each is named, with what is wrong), or several do.
    """
    folder = under_root(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"use_released_paths: there is no folder {folder}")
    return {branch: _only_fitting(folder, branch, sizes, root, ratio) for branch in PREFIXES}


def _only_fitting(folder: Path, branch: str, sizes: Mapping, root: str | Path, ratio: int) -> Released:
    files = sorted(folder.rglob(f"{PREFIXES[branch]}*.pt"))
    if not files:
        seen = ", ".join(sorted(path.name for path in folder.rglob("*.pt"))) or "none"
        raise FileNotFoundError(
            f"{folder} has no {PREFIXES[branch]}*.pt ({branch} branch); .pt files: {seen}"
        )
    fitting, wrong = [], []
    for file in files:
        try:
            fitting.append(read_released(file, branch, sizes, root, ratio))
        except ValueError as error:
            wrong.append(str(error))
    if not fitting:
        raise ValueError("\n".join([f"no released {branch} file fits this run:", *wrong]))
    if len(fitting) > 1:
        names = ", ".join(found.file.name for found in fitting)
        raise ValueError(
            f"{len(fitting)} released {branch} files fit: {names}; leave one of them in {folder}"
        )
    return fitting[0]


def released_paths(
    folder: str | Path, model: nn.Module, root: str | Path, ratio: int, top_k: Mapping[str, int]
) -> list[NeuronPath]:
    """Text and vision path from a folder of released files, for a loaded model.

    A released file carries no fingerprint: that its scores are of this model, fine-tuned on these people, is taken
    on trust wherever shape and number of samples fit.

    Args:
        folder, root, ratio: see `find_released`.
        model: the vanilla model.
        top_k: per branch, neurons that each sample adds to a layer.
    """
    fingerprint = models.fingerprint(model)
    found = find_released(folder, branch_sizes(model), root, ratio)
    return [found[branch].path(fingerprint, top_k[branch], str(root)) for branch in PREFIXES]


def write_released(scores: Scores, file: str | Path) -> bool:
    """Scores as a released file: one tensor in the dtype they were released in, or bfloat16 for our own.

    Names, fingerprint and how the scores were made have no place in such a file.

    Returns:
        Whether every score is in the file as it was; else some were rounded.
    """
    rounded = scores.values.to(getattr(torch, scores.parameters.get("dtype", "bfloat16")))
    with atomic_path(file) as temporary:
        torch.save(rounded.contiguous(), temporary)
    return torch.equal(rounded.float(), scores.values)
