"""What locating refuses before it runs the model: batches that cannot be scored, networks that cannot be scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from mipnb.batches import IGNORED, Batch, n_pictures
from mipnb.benchmarks import Question
from mipnb.models import FFN

_QUANTISED = ("4bit", "8bit", "quant", "awq", "gptq", "hqq", "qlinear")


def check_choices(**choices: tuple) -> None:
    """Raise ValueError for a value (first of each pair) that is none of those known (second)."""
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


def check_numbers(**numbers: object) -> None:
    """Raise ValueError for a value that is no whole number of at least 1."""
    for name, value in numbers.items():
        if not (isinstance(value, Integral) and value >= 1):
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")


def check_device(device: str) -> None:
    """Raise ValueError if a GPU asked for by name is not there."""
    count = torch.cuda.device_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise ValueError(
            f"device = {device}: torch finds {count} GPUs here; set device to cpu, or to one that is there"
        )


def check_sets(sets: Mapping[str, Sequence[Question]]) -> None:
    """Raise ValueError unless every set, by name, has questions, and all are of one modality."""
    if empty := [name for name, part in sets.items() if not part]:
        raise ValueError(f"the {empty[0]} set has no questions; give at least one")
    if len(kinds := {question.modality for part in sets.values() for question in part}) > 1:
        raise ValueError(
            f"questions of one modality are needed at a time; these are {sorted(kinds)}: see `of_modality`"
        )


def check_networks(model: nn.Module, ffns: Sequence[FFN]) -> None:
    """Raise ValueError unless there are networks, of one width, with neurons, and no layer of the model is quantised."""
    widths = {ffn.n_neurons for ffn in ffns}
    if len(widths) != 1:
        raise ValueError(
            f"expected networks with one number of neurons, found {sorted(widths)} in {len(ffns)} networks"
        )
    if widths == {0}:
        raise ValueError(
            f"{ffns[0].name} has no neurons: its last linear layer has no input columns to score"
        )
    for ffn in ffns:
        for name, linear in ((ffn.output_name, ffn.output), *zip(ffn.input_names, ffn.inputs, strict=True)):
            weight = getattr(linear, "weight", None)  # some pack it elsewhere
            named = any(word in type(linear).__name__.lower() for word in _QUANTISED)
            if named or weight is None or _packed(weight):
                _refuse(_described(name, linear, weight))
    check_precision(model)
    _check_offloaded(model)


def _check_offloaded(model: nn.Module) -> None:
    """Raise ValueError for offloaded weights that would have to be made float32 where they are not."""
    away = [parameter.dtype for parameter in model.parameters() if parameter.is_meta]
    if rounded := [dtype for dtype in away if dtype != torch.float32]:
        raise ValueError(
            f"weights of this model are offloaded, in {rounded[0]}: scores are computed in float32, which takes weights that "
            'are there; load it with device_map "one" or "auto", or in float32'
        )


def check_precision(model: nn.Module) -> None:
    """Raise ValueError if a layer of the model is quantised, or transformers says that the model is."""
    if getattr(model, "is_quantized", False):
        _refuse(f"this {type(model).__name__} is quantised")
    for name, module in model.named_modules():
        for weight in module.parameters(recurse=False):
            if _packed(weight):
                _refuse(_described(name, module, weight))


def _packed(weight: Tensor) -> bool:
    """Whether a weight is kept in whole numbers, in 8 bits or less, or in a tensor or parameter of its own kind.

    torchao and quanto have tensors of their own, which call themselves float32; bitsandbytes has parameters of its own, whose
    bytes may be stored under any dtype.
    """
    plain = isinstance(weight, nn.Parameter) and weight.is_floating_point()
    plain = plain and (type(weight), type(weight.data)) == (nn.Parameter, Tensor)
    return not plain or weight.element_size() < 2


def _described(name: str, module: nn.Module, weight: Tensor | None) -> str:
    known = "no" if weight is None else f"{weight.dtype} ({type(weight).__name__})"
    return f"{name} is a {type(module).__name__} with {known} weights"


def _refuse(what: str) -> None:
    raise ValueError(
        f"{what}: a quantised network's neurons cannot be edited, and scores are those of rounded weights, wherever in the "
        "model they are; load the model in bfloat16 or float32"
    )


def check_batch(model: nn.Module, batch: Batch, branch: str) -> None:
    """Raise ValueError if a batch lacks labels, answer tokens or pictures, or holds several pictures a sample."""
    if "labels" not in batch:
        raise ValueError(
            f"the batch has no labels, only {sorted(batch)}: encode the questions with their answers"
        )
    labels = batch["labels"]
    if not len(labels) or labels.dtype != torch.int64:
        raise ValueError(f"labels are {labels.dtype} {tuple(labels.shape)}; expected int64 (samples, tokens)")
    empty = (labels[:, 1:] == IGNORED).all(1).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"samples {empty} of the batch have no answer token: every label is {IGNORED}")
    if branch == "vision" and "pixel_values" not in batch:
        raise ValueError(
            f"the vision branch needs image questions; the batch holds {sorted(batch)} and no pixel_values"
        )
    _check_pictures(model, batch)


def _check_pictures(model: nn.Module, batch: Batch) -> None:
    pictures = n_pictures(batch)
    if pictures not in (None, len(batch["labels"])):
        raise ValueError(
            f"{pictures} pictures for {len(batch['labels'])} samples; expected one picture a sample"
        )
    token = getattr(getattr(model, "config", None), "image_token_id", None)
    if token is None or "input_ids" not in batch or "pixel_values" in batch:
        return
    pictured = (batch["input_ids"] == token).any(1).nonzero()[:, 0].tolist()
    if pictured:
        raise ValueError(
            f"samples {pictured} of the batch are image questions without an image: they hold image tokens, and the "
            f"batch has no pixel_values; encode them with their pictures"
        )


def sample_names(names: Sequence[str] | None, samples: int) -> tuple[str, ...]:
    """The samples' names, "0", "1", ... by default; ValueError if their number is wrong."""
    names = tuple(map(str, range(samples) if names is None else names))
    if len(names) != samples:
        raise ValueError(f"{len(names)} names for {samples} samples; expected one a sample")
    return names
