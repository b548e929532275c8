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

Two cheaper estimators read the unscaled model alone, one forward and backward for all layers: `gradient`, activation times
gradient (attribution patching), and `relevance`, the same with propagation rules in the backward pass (`relevance`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from mipnb import models
from mipnb.answers import TARGETS
from mipnb.batches import Batch
from mipnb.budget import rows_within
from mipnb.hooks import undisturbed
from mipnb.integrals import weight_at_one
from mipnb.models import FFN
from mipnb.parts import part_size, parts_by_length
from mipnb.precision import float32_arithmetic
from mipnb.preconditions import check_batch, check_choices, check_networks, check_numbers, sample_names
from mipnb.probe import Probe
from mipnb.relevance import relevance_rules
from mipnb.rules import ADAPTIVE, RULES, adds_up, check_search, default_rule, quadrature
from mipnb.scores import Scores
from mipnb.searches import AT_ONE, Found, Plan, exact, greedy, one_pass, shortlist, tangent, top_neurons
from mipnb.sharing import reached, shared

KINDS = {"igi": 1, "ifi": 2}  # power of the gradients
SCORES = ("joint", "complete")
SEARCHES = {
    "greedy": greedy,
    "exact": exact,
    "one_pass": one_pass,
    "tangent": tangent,
    "shortlist": shortlist,
    "gradient": one_pass,
    "relevance": one_pass,
}
UNSCALED = ("gradient", "relevance")  # that look at the unscaled model alone
TANGENTS = ("tangent", "shortlist")  # that score a first layer by the unscaled model
#: searches that scale candidates one by one, as many at a time as a pass has rows for
MANY_SETS = ("exact", "shortlist")
MAX_ROWS = 64  # of a pass, unless told
SEARCH, N_STEPS = "shortlist", 4  # unless told


def attribute(
    model: nn.Module,
    batch: Batch,
    branch: str,
    *,
    kind: str | None = None,
    score: str = "complete",
    search: str = SEARCH,
    n_steps: int = N_STEPS,
    rule: str | None = None,
    top_k: int = 5,
    target: str | None = None,
    max_rows: int | None = None,
    memory_gb: float | None = None,
    completeness: bool = True,
    names: Sequence[str] | None = None,
    ffns: Sequence[FFN] | None = None,
    fingerprint: str | None = None,
) -> Scores:
    """Score every neuron of a branch for every sample of a batch.

    A model in bfloat16 or float16 is computed in float32 (`precision.float32_arithmetic`), so that scores depend on its
    weights alone. It is left as found: hooks come off, training and requires_grad flags are restored, no weight gets
    a gradient. A layer that the answer does not depend on (a vision tower's blocks beyond its feature layer) scores 0
    (`Scores.silent_layers`). A sample whose scores are all 0, since the model is surer than its numbers are fine, is warned of.

    Args:
        model: a vision-language model; it is run in eval mode.
        batch: questions encoded with answers (labels -100 outside them), right-padded; with one picture each for the
            vision branch.
        branch: "text" or "vision".
        kind: "igi" (Eq. 4) or "ifi" (Eq. 6); by default igi for text and ifi for vision.
        score: "joint" (as printed) or "complete" (each neuron's own integral).
        search: "exact" (Algorithm 1 as written, every candidate on its own; small models only); "shortlist" (a few of a
            layer, each on its own; the others as by "tangent"), the cheapest that comes near to it; "tangent" (to first order
            in the candidate: the path alone is scaled), "greedy" (whole layers scaled at once) or "one_pass" (all layers);
            or an estimator without integral, "gradient" or "relevance".
        n_steps: grid points m; "gradient" and "relevance" have none.
        rule: "right", "midpoint" or "gauss", see `rules.quadrature`; or "stieltjes", points by sample, see `stieltjes`. By
            default the last where a completeness gap is defined (complete igi by greedy or one_pass): its gap is nearly 0, at
            as many gradients as "right" takes, in greedy all from the first layer on; else "right", the paper's.
        top_k: neurons that each layer adds to a sample's path.
        target: "probability" (F) or "log_likelihood" (G); by default F for igi, G for ifi.
        max_rows: the most samples x copies of one forward pass; memory grows with it, scores do not depend on
            it. By default 64, or as many as memory_gb allows.
        memory_gb: memory that passes may take beside the model's weights, GB of 1e9 bytes; None: no limit but max_rows.
        completeness: compute the gap where it is defined (complete igi by greedy or one_pass), at the price
            of one more forward pass a set and, for greedy, of gradients in the path, so that every layer's passes begin at
            the first one; by "stieltjes" they do anyway, and it takes no more.
        names: an identifier a sample, unique or not; by default "0", "1", ...
        ffns: the networks, instead of the branch's own (`models.ffns`).
        fingerprint: of the model, if it is known already.

    Returns:
        Scores with float32 values (samples, layers, n_neurons), in the batch's order.

    Raises:
        ValueError: an unknown choice, a top_k larger than the layer, a batch without labels, answer tokens or
            pictures, networks of different widths, without neurons or quantised, a budget too small for one sample, a model
            that passes no gradient on, scores that are not finite.
    """
    kind = kind or ("ifi" if branch == "vision" else "igi")
    target = target or ("log_likelihood" if kind == "ifi" else "probability")
    rule = rule or default_rule(kind, score, search)
    check_choices(branch=(branch, models.BRANCHES), kind=(kind, KINDS), score=(score, SCORES))
    check_choices(search=(search, SEARCHES), target=(target, TARGETS), rule=(rule, RULES + ADAPTIVE))
    check_numbers(n_steps=n_steps, top_k=top_k)
    made = {"kind": kind, "score": score, "search": search, "rule": rule, "n_steps": int(n_steps)}
    made |= {"top_k": int(top_k), "target": target}
    plan = _plan(kind, score, search, rule, n_steps, top_k, completeness)
    ffns = _networks(model, batch, branch, ffns, top_k)
    names = sample_names(names, len(batch["labels"]))
    fingerprint = models.fingerprint(model) if fingerprint is None else fingerprint
    packed = branch == "vision" and "image_grid_thw" in batch
    at_one = search in TANGENTS or plan.grid is None or weight_at_one(plan.grid) > 0
    probe = Probe(model, ffns, batch, target, packed, 1, plan.joint, at_one)
    values, full, total, zero = _computed(probe, plan, search, (max_rows, memory_gb), (branch, names))
    gap = None
    if total is not None:
        gap = completeness_gap(total, (full if zero.dim() == 1 else full[:, None]) - zero)
    return Scores(branch, values, names, fingerprint, made, full, zero, gap)


def most_rows(search: str, batch_size: int, n_steps: int) -> int:
    """The most rows of a pass where nothing tells: MAX_ROWS; for MANY_SETS no more than of a batch at all grid points.

    So `batch_size` says how much memory any search takes, and not only those whose passes are no larger.
    """
    return min(MAX_ROWS, batch_size * n_steps) if search in MANY_SETS else MAX_ROWS


def _networks(
    model: nn.Module, batch: Batch, branch: str, ffns: Sequence[FFN] | None, top_k: int
) -> Sequence[FFN]:
    """The branch's networks, or those given, once they and the batch are found fit to be scored (ValueError if not)."""
    ffns = models.ffns(model, branch) if ffns is None else ffns
    check_networks(model, ffns)
    top_neurons(torch.zeros(ffns[0].n_neurons), top_k)
    check_batch(model, batch, branch)
    return ffns


def _plan(
    kind: str, score: str, search: str, rule: str, n_steps: int, top_k: int, completeness: bool
) -> Plan:
    gap = completeness and adds_up(kind, score, search)
    check_search(search, rule, score)
    grid = quadrature(rule, n_steps) if rule in RULES else None
    if search in UNSCALED:
        grid = AT_ONE
    return Plan(grid, n_steps, KINDS[kind], score == "joint", top_k, gap)


def _rows(probe: Probe, plan: Plan, max_rows: int | None, memory_gb: float | None) -> int:
    """The most rows of a pass."""
    if max_rows is not None:
        check_numbers(max_rows=max_rows)
    if memory_gb is None:
        return max_rows or MAX_ROWS
    fitting = rows_within(memory_gb, probe, plan.n_steps)
    return min(fitting, max_rows or fitting)


def _computed(
    probe: Probe,
    plan: Plan,
    search: str,
    limits: tuple[int | None, float | None],
    whose: tuple[str, Sequence[str]],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """What `_in_parts` gives, in float32 arithmetic and with the model left as found.

    Args:
        probe: of the whole batch, nothing computed yet.
        plan: what to compute.
        search: its name.
        limits: max_rows and memory_gb of `attribute`.
        whose: branch and names of the samples, for messages.
    """
    model = probe.model
    with undisturbed(model), float32_arithmetic(model), torch.inference_mode(False), torch.enable_grad():
        probe = shared(probe)
        probe = replace(probe, max_rows=_rows(probe, plan, *limits))
        with relevance_rules(model, probe.ffns) if search == "relevance" else nullcontext():
            found = _in_parts(probe, plan, SEARCHES[search])
            _check_reached(probe, found[0], *whose)
    return found


def _in_parts(probe: Probe, plan: Plan, search) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Scores, value, sum of integrals and value at zero of all samples (on the processor), from parts of like length."""
    order, found = [], []
    for rows, batch in parts_by_length(probe.batch, _samples_at_a_time(probe, plan)):
        part = replace(probe, batch=batch)
        result: Found = search(part, plan)
        found.append((result.values, part.unscaled.value, result.total, result.zero))
        order.append(rows)
    back = torch.cat(order).argsort()
    columns = zip(*found, strict=True)
    return tuple(None if column[0] is None else torch.cat(column).cpu()[back] for column in columns)


def _samples_at_a_time(probe: Probe, plan: Plan) -> int:
    points = 1 if plan.grid is None else int((plan.grid[0] < 1).sum())  # by sample: one after the other
    return part_size(probe.max_rows, max(1, points))


def _check_reached(probe: Probe, values: Tensor, branch: str, names: Sequence[str]) -> None:
    """ValueError if no gradient reaches any layer; a warning for samples whose gradients are all 0."""
    empty = (values == 0).flatten(1).all(1)
    if not empty.any():
        return
    if empty.all() and not any(reached(probe)):
        raise ValueError(
            f"no gradient reaches any of the {len(probe.ffns)} layers of the {branch} branch from the answer: something in "
            f"the model cuts the graph (no_grad, detach, a quantised or frozen module that does not pass gradients on)"
        )
    silent = [names[row] for row in empty.nonzero()[:, 0].tolist()]
    warnings.warn(
        f"every gradient of samples {silent} is 0, where the model is sure of an answer, or sure that it is another: their "
        'scores rank nothing; leave these questions out, or score target "log_likelihood"',
        stacklevel=4,
    )


def completeness_gap(total: Tensor, change: Tensor) -> Tensor:
    """|total - change| / |change|, and 0 where both are 0: how far integrals are from F(1) - F(0)."""
    missing = (total - change).abs()
    return torch.where(missing == 0, missing, missing / change.abs())
