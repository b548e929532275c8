"""Pictures that several questions of a batch show, gone through once by the vision tower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mipnb.batches import Batch, pick

_KEYS = ("pixel_values", "image_grid_thw")


class Shown(NamedTuple):
    """The pictures of a batch.

    Attributes:
        first: the samples that show a picture before any other does.
        which: of each sample, how manieth of these its picture is.
    """

    first: list[int]
    which: list[int]


def shown(batch: Batch) -> Shown | None:
    """Which samples show the same picture, to the last bit; None where no two do, or there is none."""
    if "pixel_values" not in batch:
        return None
    places: dict[bytes, int] = {}
    which = [places.setdefault(key, len(places)) for key in _contents(batch)]
    first = [which.index(place) for place in range(len(places))]
    return Shown(first, which) if len(first) < len(which) == len(batch["labels"]) else None


def _contents(batch: Batch) -> list[bytes]:
    pictures: Sequence[Tensor] = batch["pixel_values"]
    if "image_grid_thw" in batch:
        pictures = batch["pixel_values"].split(batch["image_grid_thw"].prod(-1).tolist())
    return [picture.cpu().contiguous().numpy().tobytes() for picture in pictures]


@contextmanager
def each_picture_once(model: nn.Module, batch: Batch, pictures: Shown | None) -> Iterator[None]:
    """While it lasts, the model's tower works on each picture of the batch once, and its features serve all who show it.

    A model that has no `get_image_features` goes through all of them.

    Args:
        model: a vision-language model; left as found.
        batch: what the model is asked.
        pictures: from `shown`; None: nothing is shared.
    """
    inner = getattr(model, "model", None)
    own = getattr(inner, "get_image_features", None)
    if pictures is None or own is None:
        yield
        return
    few = pick({key: batch[key] for key in _KEYS if key in batch}, torch.tensor(pictures.first))

    def features(pixel_values: Tensor, image_grid_thw: Tensor | None = None, **options):
        """Features of the distinct pictures, each as often as it is shown."""
        found = own(**few, **options)
        found.pooler_output = _repeated(found.pooler_output, pictures.which)
        return found

    inner.get_image_features = features
    try:
        yield
    finally:
        del inner.get_image_features


def _repeated(features: Sequence[Tensor] | Tensor, which: list[int]) -> Sequence[Tensor] | Tensor:
    """Of features a picture, a tensor (pictures, ...) or one tensor each, those that are asked for."""
    return features[which] if isinstance(features, Tensor) else tuple(features[index] for index in which)
