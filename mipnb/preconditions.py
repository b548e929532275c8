"""What locating refuses before it runs the model: batches that cannot be scored, networks that cannot be scaled."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mipnb.batches import IGNORED, Batch, n_pictures
from mipnb.models import FFN

_QUANTISED = ("4bit", "8bit", "quant", "awq", "gptq", "hqq")


def check_choices(**choices: tuple) -> None:
    """Raise ValueError for a value (first of each pair) that is none of those known (second)."""
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


def check_networks(ffns: Sequence[FFN]) -> None:
    """Raise ValueError unless there are networks, of one width, with neurons, in plain floating-point weights."""
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
        _check_precision(ffn)


def _check_precision(ffn: FFN) -> None:
    for name, linear in ((ffn.output_name, ffn.output), *zip(ffn.input_names, ffn.inputs, strict=True)):
        kind, weight = type(linear).__name__, getattr(linear, "weight", None)  # some pack it elsewhere
        packed = weight is None or not weight.is_floating_point()
        if packed or any(word in kind.lower() for word in _QUANTISED):
            known = "no" if weight is None else weight.dtype
            raise ValueError(
                f"{name} is a {kind} with {known} weights: a quantised network's neurons cannot be edited, and "
                f"its scores are those of the rounded weights; load the model in bfloat16 or float32"
            )


def check_batch(model: nn.Module, batch: Batch, branch: str) -> None:
    """Raise ValueError if a batch lacks labels, answer tokens or pictures, or holds several pictures a sample."""
    if "labels" not in batch:
        raise ValueError(
            f"the batch has no labels, only {sorted(batch)}: encode the questions with their answers"
        )
    empty = (batch["labels"][:, 1:] == IGNORED).all(1).nonzero()[:, 0].tolist()
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
