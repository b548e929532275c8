"""A quick causal check: what becomes of the right answer's probability when chosen neurons are silenced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import pandas as pd
import torch
from torch import nn

from mipnb.batches import Batch, answer_logprob, batches, encode
from mipnb.benchmarks import Question
from mipnb.hooks import zeroed
from mipnb.models import ffns
from mipnb.paths import NeuronPath

#: questions with what the model reads of them, batch by batch
Encoded = list[tuple[Sequence[Question], Batch]]
COLUMNS = ["silenced", "set", "modality", "probability", "change"]


def answer_probability(
    model: nn.Module, processor, questions: Sequence[Question], batch_size: int = 32, device: str = "cpu"
) -> pd.DataFrame:
    """F = exp(mean log-probability of the right answer's tokens) of every question.

    Returns:
        Columns modality and probability, text questions first (the order of `batches`).
    """
    return _probability(model, _encoded(processor, questions, batch_size, device))


def _encoded(processor, questions: Sequence[Question], batch_size: int, device: str) -> Encoded:
    return [(group, encode(processor, group, device=device)) for group in batches(questions, batch_size)]


def _probability(model: nn.Module, encoded: Encoded) -> pd.DataFrame:
    rows = []
    for group, batch in encoded:
        inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
        with torch.inference_mode():
            found = answer_logprob(model(**inputs).logits, batch["labels"]).exp().tolist()
        rows += [(question.modality, value) for question, value in zip(group, found, strict=True)]
    return pd.DataFrame(rows, columns=["modality", "probability"])


def silencing(
    model: nn.Module,
    processor,
    asked: Mapping[str, Sequence[Question]],
    choices: Mapping[str, Iterable[NeuronPath]],
    batch_size: int = 32,
    device: str = "cpu",
) -> pd.DataFrame:
    """Silence paths, one choice after the other, and ask.

    Args:
        model, processor: from `load_model`, `load_processor`; left as found.
        asked: name of a set ("forget", "retain") -> questions.
        choices: name -> the paths silenced together; "nothing" comes first by itself.

    Returns:
        One row a choice, set and modality: mean probability, and its change from "nothing".

    Raises:
        ValueError: a path is of another model.
    """
    rows = []
    sets = {group: _encoded(processor, questions, batch_size, device) for group, questions in asked.items()}
    for name, chosen in {"nothing": (), **choices}.items():
        with _silent(model, chosen):
            for group, encoded in sets.items():
                found = _probability(model, encoded)
                rows += [
                    (name, group, modality, value)
                    for modality, value in found.groupby("modality").probability.mean().items()
                ]
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    before = table[table.silenced == "nothing"].set_index(["set", "modality"]).probability
    reference = [before[row.set, row.modality] for row in table.itertuples()]
    return table.assign(change=table.probability - np.array(reference))


def _silent(model: nn.Module, chosen: Iterable[NeuronPath]) -> ExitStack:
    stack = ExitStack()
    try:
        for path in chosen:
            path.check(model)
            stack.enter_context(zeroed(ffns(model, path.branch), path.layers))
    except BaseException:
        stack.close()
        raise
    return stack


def beside_random(table: pd.DataFrame, path: str, random: Sequence[str], modality: str) -> dict[str, float]:
    """A path's effect beside that of random draws of the same size.

    Args:
        table: from `silencing`.
        path, random: names of choices.
        modality: "text" or "image_text".

    Returns:
        forget, retain: the path's changes; random_forget: the largest fall of any random draw;
        spared: how much further forget falls than retain; random_spared: the most of any draw.
    """
    change = table[table.modality == modality].set_index(["silenced", "set"]).change
    falls = [-change[name, "forget"] for name in random]
    spared = [change[name, "retain"] - change[name, "forget"] for name in random]
    forget, retain = change[path, "forget"], change[path, "retain"]
    return {
        "forget": forget, "retain": retain, "random_forget": -max(falls),
        "spared": retain - forget, "random_spared": max(spared),
    }  # fmt: skip


def verdict(table: pd.DataFrame, path: str, random: Sequence[str], modality: str, least: float = 0.01) -> str:
    """`beside_random` in a sentence: true whatever the numbers are; differences below `least` do not count."""
    found = beside_random(table, path, random, modality)
    harder = "more than" if found["forget"] < found["random_forget"] - least else "no more than"
    kinder = "more" if found["spared"] > found["random_spared"] + least else "no more"
    return (
        f"**{path}**, {modality.replace('_', '-')} questions: forget {found['forget']:+.2f}, retain {found['retain']:+.2f}; "
        f"the hardest of {len(random)} random draws moves forget by {found['random_forget']:+.2f}. The path matters "
        f"**{harder}** random neurons, and is **{kinder}** specific to the forget set than they are."
    )
