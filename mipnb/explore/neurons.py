"""One neuron: what it does at tokens and patches, whom it serves, what becomes of an answer without it; and paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import ProcessorMixin

from mipnb.batches import encode
from mipnb.benchmarks import Question
from mipnb.evidence.activations import KINDS, position_kinds
from mipnb.explore.ask import value_probability
from mipnb.explore.opened import GROUPS, Opened
from mipnb.explore.places import on_patches, on_tokens
from mipnb.generation import generate
from mipnb.hooks import captured, zeroed
from mipnb.locating import PAIRS
from mipnb.models import ffns, input_device
from mipnb.scores import Scores

NODES = ["branch", "layer", "neuron", "score", "share"]


@dataclass(frozen=True, eq=False)
class NeuronReport:
    """One neuron and one question.

    Attributes:
        branch, layer, neuron: which one, from 0.
        tokens: one row a position of the language model: position, token, kind (prompt, picture, answer), activation;
            empty for a vision neuron.
        patches: activation on the picture, float32 (rows, columns): a cell a patch, or a picture token for a language
            neuron; None without a picture.
        answers: rows "as it is" and "zeroed": answer, probability of the true value.
    """

    branch: str
    layer: int
    neuron: int
    tokens: pd.DataFrame
    patches: np.ndarray | None
    answers: pd.DataFrame


def neuron_report(
    model: nn.Module,
    processor: ProcessorMixin,
    question: Question,
    branch: str,
    layer: int,
    neuron: int,
    max_new_tokens: int = 20,
) -> NeuronReport:
    """What a neuron does for a question.

    Args:
        model, processor: from `load_model`, `load_processor`; left as found.
        question: with its right answer; with a picture for a vision neuron.
        branch: "text" or "vision".
        layer, neuron: counted from 0.
        max_new_tokens: an answer ends there.

    Returns:
        Its activations, and the answer with and without it (`NeuronReport`).

    Raises:
        ValueError: no such layer or neuron, or a vision neuron and no picture.
    """
    networks = ffns(model, branch)
    if not 0 <= layer < len(networks) or not 0 <= neuron < networks[layer].n_neurons:
        raise ValueError(
            f"no neuron {neuron} in layer {layer} of the {branch} branch: it has layers 0..{len(networks) - 1} "
            f"of {networks[0].n_neurons} neurons"
        )
    if branch == "vision" and question.image is None:
        raise ValueError("a vision neuron does nothing for a question without a picture: choose image_text")
    tokens, patches = _activation(model, processor, question, branch, layer, neuron)
    silent = [[neuron] if index == layer else [] for index in range(len(networks))]
    rows = {"as it is": _answer(model, processor, question, max_new_tokens)}
    with zeroed(networks, silent):
        rows["zeroed"] = _answer(model, processor, question, max_new_tokens)
    answers = pd.DataFrame(rows, index=["answer", "probability"]).T.astype({"probability": float})
    return NeuronReport(branch, layer, neuron, tokens, patches, answers)


def _answer(model: nn.Module, processor, question: Question, max_new_tokens: int) -> tuple[str, float]:
    said = generate(model, processor, [question], 1, max_new_tokens)[0]
    return said, value_probability(model, processor, [question])[0]


def _activation(
    model: nn.Module, processor, question: Question, branch: str, layer: int, neuron: int
) -> tuple[pd.DataFrame, np.ndarray | None]:
    batch = encode(processor, [question], device=input_device(model))
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.inference_mode(), captured([ffns(model, branch)[layer]]) as seen:
        model(**inputs)
    values = seen[0][..., neuron].float()
    columns = ["position", "token", "kind", "activation"]
    if branch == "vision":
        return pd.DataFrame(columns=columns), on_patches(model, batch, values)
    kinds = position_kinds(model, batch)[0].tolist()
    words = [processor.tokenizer.decode([token]) for token in batch["input_ids"][0].tolist()]
    rows = zip(range(len(words)), words, [KINDS[kind] for kind in kinds], values[0].tolist(), strict=True)
    at_picture = torch.tensor([KINDS[kind] == "picture" for kind in kinds], device=values.device)
    patches = on_tokens(model, batch, values[0][at_picture]) if question.image is not None else None
    return pd.DataFrame(rows, columns=columns), patches


def served(scores: Mapping[str, Scores], layer: int, neuron: int, names: Mapping[str, str]) -> pd.DataFrame:
    """Whom a neuron serves: its mean score over each person's located questions.

    Args:
        scores: "forget" and "retain" -> scores of one branch and modality.
        layer, neuron: counted from 0.
        names: person_id -> name.

    Returns:
        One row a person, largest score first: person_id, name, set, n_questions, score.
    """
    rows = []
    for group, found in scores.items():
        people = [name.rpartition("/")[0] for name in found.names]
        values = found.values[:, layer, neuron].tolist()
        rows += [
            (person, names.get(person, person), group, value)
            for person, value in zip(people, values, strict=True)
        ]
    table = pd.DataFrame(rows, columns=["person_id", "name", "set", "score"])
    table = table.groupby(["person_id", "name", "set"], as_index=False).score.agg(
        n_questions="size", score="mean"
    )
    return table.sort_values(["score", "person_id"], ascending=[False, True], ignore_index=True)


def served_text(table: pd.DataFrame) -> str:
    """`served` in a sentence: means of both sets, and who has most of it."""
    means = {group: table[table["set"] == group].score.mean() for group in GROUPS}
    more = max(means, key=means.get)
    first = ", ".join(
        f"{row.name} ({row.set})"
        for row in table.head(3)[["name", "set"]].itertuples(index=False, name="Row")
    )
    return (
        f"Mean score {means['forget']:+.2g} over people to forget, {means['retain']:+.2g} over people to keep: it serves "
        f"the {more} set more. Most of it goes to {first}."
    )


def path_nodes(opened: Opened, name: str, modality: str, top_k: int) -> pd.DataFrame:
    """The top neurons of every layer for one located question, in both branches.

    Args:
        opened: the run.
        name: of the question, see `Opened.asked`.
        modality: "text" or "image_text"; a question without a picture has no vision path.
        top_k: neurons a layer.

    Returns:
        branch, layer, neuron, score, share (of the branch's largest score; 0 for negative ones), best of a layer first.

    Raises:
        ValueError: no such question, or a top_k outside 1 and the layers' size.
    """
    group, parts = opened.group_of(name, modality), []
    for pair, (branch, asked) in PAIRS.items():
        if asked == modality:
            scores = opened.scores[group, pair]
            if not 1 <= top_k <= scores.n_neurons:
                raise ValueError(f"top_k is {top_k}, expected 1 to {scores.n_neurons}")
            best = scores.values[scores.names.index(name)].topk(top_k)  # (layers, top_k)
            largest = max(float(best.values.max()), 1e-30)
            rows = [
                (branch, layer, neuron, value, max(0.0, value / largest))
                for layer, (neurons, values) in enumerate(
                    zip(best.indices.tolist(), best.values.tolist(), strict=True)
                )
                for neuron, value in zip(neurons, values, strict=True)
            ]
            parts.append(pd.DataFrame(rows, columns=NODES))
    return pd.concat(parts, ignore_index=True)


def path_lines(nodes: pd.DataFrame) -> pd.DataFrame:
    """Lines between the neurons of one layer and the next: branch, layer, neuron, above, width.

    `width` is the mean share of the two neurons (0 to 1): the joint scores of a path's two ends.
    """
    above = nodes.assign(layer=nodes.layer - 1).rename(columns={"neuron": "above", "share": "share_above"})
    lines = nodes.merge(above[["branch", "layer", "above", "share_above"]], on=["branch", "layer"])
    lines["width"] = (lines.share + lines.share_above) / 2
    return lines[["branch", "layer", "neuron", "above", "width"]]
