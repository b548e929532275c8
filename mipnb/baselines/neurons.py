"""Neurons that MANU and DEPN silence; both prune, and train nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mipnb.attribution import MAX_ROWS
from mipnb.baselines.settings import Settings
from mipnb.batches import Batch, to_device
from mipnb.hooks import captured, undisturbed
from mipnb.integrals import below_one, integrate
from mipnb.models import BRANCHES, ffns, fingerprint, input_device
from mipnb.paths import NeuronPath
from mipnb.precision import float32_arithmetic
from mipnb.preconditions import check_batch
from mipnb.probe import Probe
from mipnb.rules import quadrature
from mipnb.scaled_path import ScaledPath
from mipnb.sharing import shared

_TINY = 1e-8


def moments(model: nn.Module, batches: Sequence[Batch], branch: str, threshold: float) -> Tensor:
    """What MANU's importances are made of, over all real tokens (vision: patches) of some batches.

    Returns:
        float64 (layers, 4, neurons): mean |z|, how often |z| is above the threshold, variance of z, sum of squares.

    Raises:
        ValueError: no batches, or one of which the branch sees nothing.
    """
    if not batches:
        raise ValueError(
            f"moments of the {branch} branch: found no batches, expected at least one; "
            "a modality that the branch does not see counts as zeros in `importance`"
        )
    networks, count = ffns(model, branch), 0
    sums = torch.zeros(len(networks), 4, networks[0].n_neurons, dtype=torch.float64)
    for batch in batches:
        batch = to_device(batch, input_device(model))
        inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
        with torch.no_grad(), captured(networks) as seen:
            model(**inputs, use_cache=False)
        if all(activation is None for activation in seen):
            raise ValueError(
                f"moments of the {branch} branch: none of its {len(networks)} networks was run on a batch that holds "
                f"{sorted(batch)}; expected pictures (pixel_values): leave text questions out for the vision branch"
            )
        for layer, activation in enumerate(seen):
            if activation is not None:
                z = _real(activation, batch, branch).double().cpu()
                sums[layer] += torch.stack(
                    [z.abs().sum(0), (z.abs() > threshold).sum(0), z.sum(0), z.square().sum(0)]
                )
        count += len(z)
    mean, squares = sums[:, 2] / count, sums[:, 3]
    return torch.stack([sums[:, 0] / count, sums[:, 1], squares / count - mean.square(), squares], dim=1)


def _real(activation: Tensor, batch: Batch, branch: str) -> Tensor:
    """Activations without padding: (positions, neurons)."""
    flat = activation.reshape(-1, activation.shape[-1])
    return flat[batch["attention_mask"].bool().flatten()] if branch == "text" else flat


def importance(pictured: Tensor, plain: Tensor) -> Tensor:
    """MANU's importance, the sum of its four (Liu et al., ACL 2025): float64 (layers, neurons).

    I_abs, I_freq and I_rms compare questions with a picture and without, I_var adds their variances.

    Args:
        pictured, plain: `moments` of both modalities; zeros for a modality that a branch does not see.
    """
    (zm, nm, vm, sm), (zt, nt, vt, st) = pictured.unbind(1), plain.unbind(1)
    i_abs = (zm - zt).abs() / (zm + zt + _TINY)
    i_freq = (nm - nt).abs() / (nm + nt + _TINY)
    i_var = (vm + vt).clamp_min(0).sqrt()
    i_rms = ((sm - st).abs() / (sm + st + _TINY)).sqrt()
    return i_abs + i_freq + i_var + i_rms


def manu_scores(
    model: nn.Module, forget: Sequence[Batch], retain: Sequence[Batch], branch: str, threshold: float
) -> Tensor:
    """I(forget) / (I(retain) + e) of every neuron: float64 (layers, neurons)."""
    found = []
    for batches in (forget, retain):
        groups = [[b for b in batches if ("pixel_values" in b) == kind] for kind in (True, False)]
        if branch == "vision":
            groups[1] = []  # a text question has no patches
        nothing = torch.zeros(
            len(ffns(model, branch)), 4, ffns(model, branch)[0].n_neurons, dtype=torch.float64
        )
        found.append(importance(*(moments(model, g, branch, threshold) if g else nothing for g in groups)))
    return found[0] / (found[1] + _TINY)


def manu_paths(
    model: nn.Module, forget: Sequence[Batch], retain: Sequence[Batch], settings: Settings
) -> list[NeuronPath]:
    """The highest-scored share of each branch's neurons, wherever they lie; text first."""
    mark, paths = fingerprint(model), []
    for branch in BRANCHES:
        scores = manu_scores(model, forget, retain, branch, settings.threshold)
        top = scores.flatten().argsort(descending=True, stable=True)[
            : max(1, round(settings.share * scores.numel()))
        ]
        chosen = torch.zeros(scores.numel(), dtype=torch.bool).index_fill(0, top, True).view_as(scores)
        paths.append(_path(branch, chosen, mark))
    return paths


def depn_paths(model: nn.Module, forget: Sequence[Batch], settings: Settings) -> list[NeuronPath]:
    """Neurons whose attribution exceeds a share of its sample's largest in enough samples (Wu et al. 2023); text first.

    Without questions with pictures there is no vision path. Where no neuron of any branch is above it often enough, those
    that are most often stand for them, so that the method always changes something; ValueError if none is in any sample.
    Each layer's neurons are integrated on their own, from silenced to as they are, as the source does.
    """
    mark, often = fingerprint(model), {}
    looked_at = [
        batch
        for pictured in (False, True)
        for batch in spread([b for b in forget if ("pixel_values" in b) == pictured], settings.attributed)
    ]
    for branch in BRANCHES:
        used = [batch for batch in looked_at if branch == "text" or "pixel_values" in batch]
        if not used:
            continue
        scores = torch.cat([_attributions(model, batch, branch, settings) for batch in used])
        largest = scores.flatten(1).amax(1)[:, None, None]  # (samples, 1, 1)
        often[branch] = ((scores > settings.threshold * largest) & (scores > 0)).float().mean(0)
    most = max(share.max().item() for share in often.values())
    if not most:
        raise ValueError(
            "no neuron of any branch has an attribution above 0, or some are not finite: something in the model cuts the "
            "graph, or its answers are no numbers; check it by `locate`"
        )
    enough = min(settings.agreement, most)
    return [_path(branch, share >= enough, mark) for branch, share in often.items()]


def spread(batches: Sequence[Batch], count: int) -> list[Batch]:
    """Batches with about `count` samples in all, evenly spread over those there are; all of them if these have fewer.

    Batches are ordered by length: the first ones alone would be short questions only.
    """
    total = sum(len(batch["input_ids"]) for batch in batches)
    if total <= count:
        return list(batches)
    kept = max(1, math.ceil(count / total * len(batches)))
    return [batches[index * len(batches) // kept] for index in range(kept)]


def _attributions(model: nn.Module, batch: Batch, branch: str, settings: Settings) -> Tensor:
    """Integrated gradients of the answer's probability, each layer's neurons alone: float32 (samples, layers, neurons).

    By the right rule, as the source has it. The layers below the one that is scaled are as they are, so that its passes
    begin where the unscaled pass had come to (`scaled_path`), if the model allows it.
    """
    networks, grid = ffns(model, branch), quadrature("right", settings.integration_steps)
    batch = to_device(batch, input_device(model))
    check_batch(model, batch, branch)
    packed = branch == "vision" and "image_grid_thw" in batch
    plain = Probe(model, networks, batch, "probability", packed, MAX_ROWS, at_one=True)
    with undisturbed(model), float32_arithmetic(model), torch.enable_grad():
        probe, found = shared(plain), []
        whole = probe.ones(probe.samples, probe.n_neurons)
        below = ScaledPath.begin(probe, below_one(grid, probe)[0])
        for layer in range(len(networks)):
            found += integrate(probe, {layer: whole[None]}, grid, 1, [layer], below)
            if below and layer + 1 < len(networks):
                below = below.advance(0 * whole)  # nothing of this layer stays scaled
    return torch.cat(found).transpose(0, 1).cpu()


def _path(branch: str, chosen: Tensor, mark: str) -> NeuronPath:
    layers = tuple(tuple(row.nonzero()[:, 0].tolist()) for row in chosen)
    return NeuronPath(branch, layers, chosen.shape[1], mark)
