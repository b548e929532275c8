"""Does the number type of the weights change which neurons are chosen?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from mipnb.agreement import changed
from mipnb.benchmarks import Question
from mipnb.locating import PAIRS, locate, of_modality
from mipnb.models import load_model, load_processor
from mipnb.paths import NeuronPath, select

DTYPES = ("float32", "bfloat16")


def locate_paths(
    model: nn.Module,
    processor,
    asked: Mapping[str, Sequence[Question]],
    top_k: Mapping[str, int],
    ranking: str = "contrast",
    aggregate: str = "mean",
    **choices: Any,
) -> dict[str, NeuronPath]:
    """Locate and choose in one go: the path of each branch.

    Args:
        model, processor: from `load_model`, `load_processor`.
        asked: "forget" and "retain" -> questions of both modalities.
        top_k: branch -> neurons a layer; only these branches are located.
        ranking, aggregate: of `paths.select`.
        **choices: of `locate`: batch_size, device, n_steps, rule, score, search, ...
    """
    found = {}
    for branch, size in top_k.items():
        sets = {name: of_modality(group, PAIRS[branch][1]) for name, group in asked.items()}
        scores = {
            name: locate(model, processor, group, branch, top_k=size, completeness=False, **choices)
            for name, group in sets.items()
        }
        found[branch] = select(scores["forget"], scores["retain"], size, ranking, aggregate)
    return found


def compare_dtypes(
    folder: str | Path, asked: Mapping[str, Sequence[Question]], top_k: Mapping[str, int], **choices: Any
) -> pd.DataFrame:
    """The paths of a model loaded in float32 and in bfloat16, located in the same way.

    Args:
        folder: the model's; loaded once in each number type, one after the other.
        asked, top_k: see `locate_paths`.
        **choices: of `locate_paths`.

    Returns:
        One row a branch: branch, neurons (chosen in float32), changed (share of them that bfloat16 does not choose).
    """
    processor, paths = load_processor(folder), []
    for dtype in DTYPES:
        model = load_model(folder, dtype, choices.get("device", "cpu"))
        paths.append(locate_paths(model, processor, asked, top_k, **choices))
        del model
    full, short = paths
    rows = [(branch, sum(full[branch].sizes), changed(full[branch], short[branch])) for branch in full]
    return pd.DataFrame(rows, columns=["branch", "neurons", "changed"])
