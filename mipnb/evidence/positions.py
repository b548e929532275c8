"""Scores taken at some positions only: of the prompt, the picture, the answer; or the first alone, as released code has it.

Each position has a gate of its own here, all of them at alpha on the way from 0 to 1, and every layer's gates move
together (`one_pass`). A neuron's score is then a sum over positions, and may be taken over any of them:

- "igi":  sum_t sum_k weight_k (dF/dgate_t at alpha_k); over all positions this is `attribute`'s `complete` score;
- "ifi":  sum_t sum_k weight_k (dG/dgate_t at alpha_k)^2, without the products of different positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.answers import answer_value
from mipnb.attribution import KINDS as POWERS
from mipnb.batches import Batch, encode, patch_owner
from mipnb.benchmarks import Question
from mipnb.evidence.activations import KINDS, position_kinds
from mipnb.hooks import gated, undisturbed
from mipnb.locating import question_names
from mipnb.models import FFN
from mipnb.precision import float32_arithmetic
from mipnb.rules import quadrature
from mipnb.scores import Scores, concatenate

#: where scores may be taken; the vision branch knows "all" and "first"
POSITIONS = ("all", "first", *KINDS)
#: all positions summed before the power: one gate a neuron, as in `attribute`'s complete scores by one_pass
GATES = "gates"


def locate_by_position(
    model: nn.Module,
    processor,
    questions: Sequence[Question],
    branch: str,
    kind: str,
    n_steps: int = 4,
    rule: str = "right",
    batch_size: int = 32,
    device: str = "cpu",
) -> dict[str, Scores]:
    """Scores of every neuron for every question, by where they are taken.

    Args:
        model, processor: from `load_model`, `load_processor`.
        questions: of one modality; with pictures for the vision branch.
        branch: "text" or "vision".
        kind: "igi" or "ifi".
        n_steps, rule: of the integral.
        batch_size: questions at a time.
        device: where the model is.

    Returns:
        Position -> scores; for the text branch all of POSITIONS, for the vision branch "all" and "first"; and GATES.
    """
    names, fingerprint, ffns = (
        question_names(questions),
        models.fingerprint(model),
        models.ffns(model, branch),
    )
    made = {"kind": kind, "score": "by_position", "search": "one_pass", "rule": rule, "n_steps": n_steps}
    parts: dict[str, list[Scores]] = {}
    by_length = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt))
    for start in range(0, len(questions), batch_size):
        rows = by_length[start : start + batch_size]
        batch = encode(processor, [questions[row] for row in rows], device=device)
        own = tuple(names[row] for row in rows)
        for where, values in position_scores(model, batch, ffns, branch, kind, n_steps, rule).items():
            found = Scores(branch, values, own, fingerprint, made | {"positions": where})
            parts.setdefault(where, []).append(found)
    back = torch.tensor(by_length).argsort()
    found = {where: concatenate(pieces) for where, pieces in parts.items()}
    return {
        where: replace(scores, values=scores.values[back], names=tuple(names))
        for where, scores in found.items()
    }


def position_scores(
    model: nn.Module, batch: Batch, ffns: Sequence[FFN], branch: str, kind: str, n_steps: int, rule: str
) -> dict[str, Tensor]:
    """Scores of one batch by where they are taken: position -> float32 (samples, layers, n_neurons)."""
    power, target = POWERS[kind], "log_likelihood" if kind == "ifi" else "probability"
    owner = patch_owner(batch["image_grid_thw"]) if branch == "vision" and "image_grid_thw" in batch else None
    with undisturbed(model), float32_arithmetic(model), torch.inference_mode(False), torch.enable_grad():
        given, gates = _integrals(model, batch, ffns, owner, target, quadrature(rule, n_steps), power)
    members = _members(model, batch, branch, given[0], owner)
    found = {where: [_summed(part, at, owner) for part in given] for where, at in members.items()}
    return {where: torch.stack(parts, 1).cpu() for where, parts in (found | {GATES: gates}).items()}


def _integrals(
    model: nn.Module,
    batch: Batch,
    ffns: Sequence[FFN],
    owner: Tensor | None,
    target: str,
    grid: tuple[Tensor, Tensor],
    power: int,
) -> tuple[list[Tensor], list[Tensor]]:
    """sum_k weight_k (gradient in each position's gate at alpha_k)^power: per layer in the activations' own shape.

    Beside them, per layer (samples, n_neurons), the same of each neuron's one gate, whose gradient is the sum over positions.

    A gate's gradient is the activation it scales (gated / alpha; it depends on the layers below) times dF/d(gated).
    """
    device, totals, sums = batch["labels"].device, [0.0] * len(ffns), [0.0] * len(ffns)
    for alpha, weight in zip(*(part.tolist() for part in grid), strict=True):
        gates = [
            torch.full((len(batch["labels"]), ffn.n_neurons), alpha, device=device, requires_grad=True)
            for ffn in ffns
        ]
        with gated(ffns, gates, owner) as seen:
            value = answer_value(model, batch, target).sum()
        found = torch.autograd.grad(value, seen, allow_unused=True, materialize_grads=True)
        in_gates = [w.detach().float() / alpha * slope.float() for w, slope in zip(seen, found, strict=True)]
        totals = [total + weight * part**power for total, part in zip(totals, in_gates, strict=True)]
        whole = [_summed(part, torch.ones_like(part[..., 0]), owner) for part in in_gates]
        sums = [total + weight * part**power for total, part in zip(sums, whole, strict=True)]
    return totals, sums


def _members(
    model: nn.Module, batch: Batch, branch: str, positional: Tensor, owner: Tensor | None
) -> dict[str, Tensor]:
    """Position -> which positions belong to it: float32 (samples, tokens), or (patches,) for packed ones."""
    ones = torch.ones(positional.shape[:-1], device=positional.device)
    first = torch.zeros_like(ones)
    if owner is None:
        first[:, 0] = 1
    else:
        first[1:] = (owner[1:] != owner[:-1]).float()
        first[0] = 1
    if branch == "vision":
        return {"all": ones, "first": first}
    kinds = position_kinds(model, batch)
    return {"all": ones, "first": first} | {
        name: (kinds == index).float() for index, name in enumerate(KINDS)
    }


def _summed(values: Tensor, member: Tensor, owner: Tensor | None) -> Tensor:
    """Sum over the member positions of each sample: (samples, n_neurons)."""
    chosen = values * member[..., None]
    if owner is None:
        return chosen.sum(1)
    return chosen.new_zeros(int(owner.max()) + 1, chosen.shape[-1]).index_add(0, owner, chosen)


def at_positions(scores: Scores) -> Scores:
    """The scores without the mark of where they were taken, so that those of several places can be compared."""
    return replace(scores, parameters={key: v for key, v in scores.parameters.items() if key != "positions"})
