"""Locating, Eq. 2-9: how much each FFN neuron does for each sample's answer.

A neuron's activation w is the input of its FFN's last linear layer, over all positions of a sample (tokens,
or patches of its picture). It is scaled at all of them by one gate, from 0 to 1, and the gradient of the
answer is integrated:

- F(T) = exp(mean log-probability of the answer tokens), IGI (Eq. 4), for the text branch;
- G(I, T) = log p(Y | I, T), squared gradients, IFI (Eq. 6), for the vision branch.

`joint` is Eq. 4 / Eq. 6 as printed, with 1/m (the rule's weights) included, position by position:
    sum_t [w~_{i,t} + sum_{n in P} w~_{n,t}] * [D_{i,t} + sum_{n in P} D_{n,t}],
    D_{n,t} = sum_k weight_k (dF/dw_{n,t} at alpha_k)^p,
with w~ the unscaled activations, P the path so far, p = 1 (IGI) or 2 (IFI), and P and the candidates scaled
by alpha_k in the gradients.
`complete` is each neuron's own integral, A_i = sum_k weight_k (dF/dgate_i at alpha_k)^p, the gates of the
whole set at alpha_k. For p = 1 these are integrated gradients: the sum of A over the set is F(1) - F(0), up
to the error of the rule (completeness).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.batches import IGNORED, Batch, take_batch
from mipnb.hooks import undisturbed
from mipnb.integrals import weight_at_one
from mipnb.models import FFN
from mipnb.answers import TARGETS
from mipnb.probe import Probe
from mipnb.rules import quadrature
from mipnb.scores import Scores, concatenate
from mipnb.sharing import shared
from mipnb.searches import Found, Plan, exact, greedy, one_pass, top_neurons

KINDS = {"igi": 1, "ifi": 2}  # power of the gradients
SCORES = ("joint", "complete")
SEARCHES = {"greedy": greedy, "exact": exact, "one_pass": one_pass}


def attribute(
    model: nn.Module,
    batch: Batch,
    branch: str,
    *,
    kind: str | None = None,
    score: str = "complete",
    search: str = "greedy",
    n_steps: int = 4,
    rule: str = "right",
    top_k: int = 5,
    target: str | None = None,
    max_rows: int = 64,
    completeness: bool = True,
    names: Sequence[str] | None = None,
    ffns: Sequence[FFN] | None = None,
    fingerprint: str | None = None,
) -> Scores:
    """Score every neuron of a branch for every sample of a batch.

    The model is left as found: hooks come off, training and requires_grad flags are restored, no weight gets
    a gradient.

    Args:
        model: a vision-language model; it is run in eval mode.
        batch: questions encoded with answers (labels -100 outside them); with one picture each for the vision
            branch.
        branch: "text" or "vision".
        kind: "igi" (Eq. 4) or "ifi" (Eq. 6); by default igi for text and ifi for vision.
        score: "joint" (as printed) or "complete" (each neuron's own integral).
        search: "greedy" (Algorithm 1 as practised), "exact" (every candidate on its own; small models only)
            or "one_pass".
        n_steps: grid points m.
        rule: "right", "midpoint" or "gauss", see `rules.quadrature`.
        top_k: neurons that each layer adds to a sample's path.
        target: "probability" (F) or "log_likelihood" (G); by default F for igi, G for ifi.
        max_rows: the most samples x copies of one forward pass; memory grows with it, scores do not depend on
            it.
        completeness: compute the gap where it is defined (complete igi by greedy or one_pass), at the price
            of one more forward pass a set and, for greedy, of gradients in the path.
        names: an identifier a sample, unique or not; by default "0", "1", ...
        ffns: the networks, instead of the branch's own (`models.ffns`).
        fingerprint: of the model, if it is known already.

    Returns:
        Scores with float32 values (samples, layers, n_neurons).

    Raises:
        ValueError: an unknown choice, a top_k larger than the layer, a batch without labels, answer tokens or
            (vision) pictures, networks of different widths, scores that are not finite.
    """
    kind = kind or ("ifi" if branch == "vision" else "igi")
    target = target or ("log_likelihood" if kind == "ifi" else "probability")
    _check_choices(branch=(branch, models.BRANCHES), kind=(kind, KINDS), score=(score, SCORES))
    _check_choices(search=(search, SEARCHES), target=(target, TARGETS))
    ffns = models.ffns(model, branch) if ffns is None else ffns
    _check_sizes(ffns, top_k, max_rows)
    names = _check_batch(batch, branch, names)
    gap = completeness and score == "complete" and kind == "igi" and search != "exact"
    plan = Plan(quadrature(rule, n_steps), KINDS[kind], score == "joint", top_k, gap)
    made = {"kind": kind, "score": score, "search": search, "rule": rule, "n_steps": n_steps}
    made |= {"top_k": top_k, "target": target}
    fingerprint = models.fingerprint(model) if fingerprint is None else fingerprint
    packed = branch == "vision" and "image_grid_thw" in batch
    parts = []
    with undisturbed(model), torch.inference_mode(False), torch.enable_grad():
        for rows, part in _parts(batch, max_rows):
            plain = Probe(model, ffns, part, target, packed, max_rows, plan.joint, weight_at_one(plan.grid) > 0)
            probe = shared(plain)
            found = SEARCHES[search](probe, plan)
            parts.append(_as_scores(probe.unscaled.value, found, branch, names[rows], fingerprint, made))
    return concatenate(parts)


def _parts(batch: Batch, size: int) -> Iterator[tuple[slice, Batch]]:
    for start in range(0, len(batch["labels"]), size):
        rows = slice(start, min(start + size, len(batch["labels"])))
        yield rows, take_batch(batch, rows.start, rows.stop)


def _as_scores(
    full: Tensor, found: Found, branch: str, names: tuple, fingerprint: str, parameters: dict
) -> Scores:
    gap = None
    if found.total is not None:
        change = (full if found.zero.dim() == 1 else full[:, None]) - found.zero
        gap = completeness_gap(found.total, change).cpu()
    zero = None if found.zero is None else found.zero.cpu()
    return Scores(branch, found.values.cpu(), names, fingerprint, parameters, full.cpu(), zero, gap)


def completeness_gap(total: Tensor, change: Tensor) -> Tensor:
    """|total - change| / |change|, and 0 where both are 0: how far integrals are from F(1) - F(0)."""
    missing = (total - change).abs()
    return torch.where(missing == 0, missing, missing / change.abs())


def _check_choices(**choices: tuple) -> None:
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


def _check_sizes(ffns: Sequence[FFN], top_k: int, max_rows: int) -> None:
    widths = {ffn.n_neurons for ffn in ffns}
    if len(widths) != 1:
        raise ValueError(
            f"expected networks with one number of neurons, found {sorted(widths)} in {len(ffns)} networks"
        )
    if max_rows < 1:
        raise ValueError(f"max_rows is {max_rows}; a pass holds at least 1 row")
    top_neurons(torch.zeros(widths.pop()), top_k)


def _check_batch(batch: Batch, branch: str, names: Sequence[str] | None) -> tuple[str, ...]:
    """The samples' names; ValueError if the batch cannot be scored."""
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
    pictures = len(batch.get("image_grid_thw", batch["labels"]))
    if pictures != len(batch["labels"]):
        raise ValueError(
            f"{pictures} pictures for {len(batch['labels'])} samples; expected one picture a sample"
        )
    names = tuple(map(str, range(len(batch["labels"])) if names is None else names))
    if len(names) != len(batch["labels"]):
        raise ValueError(f"{len(names)} names for {len(batch['labels'])} samples; expected one a sample")
    return names
