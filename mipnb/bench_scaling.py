"""How time and peak memory of the searches grow with what they are given."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from mipnb.attribution import attribute
from mipnb.batches import _PICTURES, IGNORED, Batch
from mipnb.locating import PAIRS
from mipnb.measuring import interleaved, peak_bytes
from mipnb.models import FFN, ffns
from mipnb.parts import pick

SEARCHES = ("greedy", "one_pass")
FEW = 8  # questions, but where their number varies
MAX_ROWS = 32  # of a pass
STRAIGHT = ("samples", "n_steps")  # that time is to lie on a straight line against
_FILL = {"attention_mask": 0, "labels": IGNORED}  # beside the samples' own tokens


def scaling(model: nn.Module, batches: dict[str, Batch], repeats: int = 3, **choices: Any) -> pd.DataFrame:
    """Time and memory against one size at a time.

    Layers are the first so many of the branch: passes can begin in the middle of those only (`replay.layout`). Patches (and
    with them tokens) vary in the vision branch of families whose pictures may have any size.

    Args:
        model: of a known family.
        batches: by pair (`locating.PAIRS`), encoded with answers.
        repeats: rounds of which seconds are the median.
        **choices: of `attribute`.

    Returns:
        Columns pair, search, varied (samples, n_steps, layers, tokens, patches), size, seconds, peak_gb.
    """
    rows = []
    own = {"rule": "right", "completeness": False, "fingerprint": "", "max_rows": MAX_ROWS} | choices
    for pair, batch in batches.items():
        branch = PAIRS[pair][0]
        sizes = list(_sizes(batch, ffns(model, branch), branch, model.config.image_token_id))
        for search in SEARCHES:
            for varied, size, part, changed in sizes:
                call = partial(attribute, model, part, branch, search=search, **own | changed)
                seconds = statistics.median(interleaved({"": call}, repeats)[""])
                rows.append((pair, search, varied, size, seconds, peak_bytes(call, model) / 1e9))
    return pd.DataFrame(rows, columns=["pair", "search", "varied", "size", "seconds", "peak_gb"])


def _sizes(
    batch: Batch, networks: Sequence[FFN], branch: str, picture: int
) -> Iterator[tuple[str, int, Batch, dict[str, Any]]]:
    """What is varied, its size, the batch and the choices that it takes."""
    few = first(batch, FEW)
    for size in (2, 4, 8, 16):
        yield "samples", size, first(batch, size), {}
        yield "n_steps", size, few, {"n_steps": size}
    for size in range(1, len(networks) + 1):
        yield "layers", size, few, {"ffns": networks[:size]}
    for times in (1, 2, 4):
        longer = lengthened(few, times)
        yield "tokens", longer["labels"].shape[1], longer, {}
    if branch == "vision" and "image_grid_thw" in batch:
        for times in (1, 2, 4):
            larger = enlarged(few, times, picture)
            yield "patches", len(larger["pixel_values"]) // FEW, larger, {}


def first(batch: Batch, size: int) -> Batch:
    """That many samples, the batch from the beginning again where it ends."""
    return pick(batch, torch.arange(size) % len(batch["labels"]))


def lengthened(batch: Batch, times: int) -> Batch:
    """The same samples with `times` as many tokens: words in front that nobody asks about."""
    shape = (len(batch["labels"]), (times - 1) * batch["labels"].shape[1])
    word = int(batch["labels"].max())  # of an answer
    front = {"input_ids": word, "attention_mask": 1, "labels": IGNORED}
    by_token = {key: tensor for key, tensor in batch.items() if key not in _PICTURES}
    return batch | {
        key: torch.cat([tensor.new_full(shape, front.get(key, 0)), tensor], dim=1)
        for key, tensor in by_token.items()
    }


def enlarged(batch: Batch, times: int, picture: int) -> Batch:
    """The same samples with as many patches as pictures `times` as wide have, for a family that packs patches.

    Args:
        batch: with image_grid_thw.
        times: how often each patch and each piece's word is there.
        picture: the word that stands for a piece of a picture.
    """
    copies = torch.where(batch["input_ids"] == picture, times, 1)
    wider = {}
    for key in batch.keys() - set(_PICTURES):
        rows = [row.repeat_interleave(count) for row, count in zip(batch[key], copies, strict=True)]
        wider[key] = pad_sequence(rows, batch_first=True, padding_value=_FILL.get(key, 0))
    pictures = batch["pixel_values"].split(batch["image_grid_thw"].prod(-1).tolist())
    patches = torch.cat([part.repeat(times, 1) for part in pictures])
    grids = batch["image_grid_thw"] * batch["image_grid_thw"].new_tensor([1, 1, times])
    return wider | {"pixel_values": patches, "image_grid_thw": grids}


def growth(table: pd.DataFrame) -> pd.DataFrame:
    """How each search's time and memory grow.

    Args:
        table: `scaling`.

    Returns:
        By pair, search and varied: exponents (slope of the logarithms, 1: in proportion) of seconds and peak_gb, and off_line,
        by how much of itself a time is at most off the straight line through all of them.
    """
    rows = {}
    for key, part in table.groupby(["pair", "search", "varied"], sort=False):
        rows[key] = {
            f"{column} exponent": np.polyfit(np.log(part["size"]), np.log(part[column]), 1)[0]
            for column in ("seconds", "peak_gb")
        } | {"off_line": _off_line(part["size"], part.seconds)}
    found = pd.DataFrame.from_dict(rows, orient="index")
    return found.rename_axis(["pair", "search", "varied"])


def _off_line(sizes: pd.Series, values: pd.Series) -> float:
    """Largest distance from the line of least squares (relative to the values), over the value."""
    line = np.polyfit(sizes, values, 1, w=1 / values)
    return float((np.abs(np.polyval(line, sizes) - values) / values).max())


def growth_sentence(table: pd.DataFrame, allowed: float = 0.15) -> str:
    """Markdown that says where time is linear, where it grows faster than in proportion, and how memory grows.

    Args:
        table: `scaling`.
        allowed: how far off the line a time may be, and an exponent above 1.
    """
    found = growth(table)
    straight = found[found.index.get_level_values("varied").isin(STRAIGHT)]
    off = straight[straight.off_line > allowed]
    faster = found[found["seconds exponent"] > 1 + allowed]["seconds exponent"]
    memory = found["peak_gb exponent"]
    return (
        f"- Time against {' and '.join(STRAIGHT)} is to lie on a straight line: at most {straight.off_line.max():.0%} off it"
        f"{'; **not within ' + f'{allowed:.0%}**: ' + _named(off.off_line, '.0%') if len(off) else ''}.\n"
        f"- Time grows faster than in proportion (exponent above {1 + allowed:g}): {_named(faster, '.2f') or 'nowhere'}.\n"
        f"- Memory grows with an exponent of at most {memory.max():.2f} ({', '.join(memory.idxmax())})."
    )


def _named(values: pd.Series, form: str) -> str:
    return "; ".join(f"{', '.join(key)} ({value:{form}})" for key, value in values.items())
