"""The baselines by name: what each trains or silences, on what, with its source's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd
from torch import nn

from mipnb.baselines import neurons, saliency, terms
from mipnb.baselines.settings import Settings
from mipnb.baselines.terms import Term
from mipnb.baselines.training import Known, train
from mipnb.batches import Batch
from mipnb.editing import prune
from mipnb.edits import Edit
from mipnb.models import ffns, text_layers

COLUMNS = ["step", "loss_forget", "loss_retain", "loss"]


@dataclass(frozen=True)
class Method:
    """A baseline.

    Attributes:
        source: where it comes from.
        forget, retain: its loss's two terms; None for a method that prunes.
        own: its source's settings, where they are not `Settings`' defaults.
        grid: what is tried for it on validation people: setting -> values.
        lora: whether its source (for three of them MLLMU-Bench's code) trains low-rank updates in place of the weights.
        refuses: whether the forget set's answers are refusals (`refusals.refusing`).
    """

    source: str
    forget: Term | None = None
    retain: Term | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    lora: bool = False
    refuses: bool = False


# RMU's rates are the better of 1e-3 and 1e-2 in a coarser grid, on the same validation people: what trades forgetting for
# keeping is the weight of its retain term, tried from far below its source's value up to it.
_RATES = {"learning_rate": (3e-5, 5e-5, 1e-4, 2e-4, 3e-4, 1e-3)}
METHODS: dict[str, Method] = {
    "ga_diff": Method("Liu et al. 2022", terms.ASCENT, terms.DESCENT, grid=_RATES, lora=True),
    "kl_min": Method("Nguyen et al. 2020", terms.ASCENT, terms.KL, grid=_RATES, lora=True),
    "npo": Method("Zhang et al. 2024", terms.NPO, terms.DESCENT, {"beta": 0.1}, grid=_RATES, lora=True),
    "idk": Method("Maini et al. 2024", terms.DESCENT, terms.DESCENT, grid=_RATES, refuses=True),
    "rmu": Method(
        "Li et al. 2024", terms.STEER, terms.HOLD,
        {"learning_rate": 5e-5, "steering": 20.0, "retain_weight": 100.0},
        {"learning_rate": (1e-2,), "retain_weight": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)},
    ),
    "rmu_adaptive": Method(
        "Dang et al. 2025", terms.ADAPTIVE, terms.HOLD,
        {"learning_rate": 5e-5, "steering": 5.0, "retain_weight": 1200.0},
        {"learning_rate": (1e-3,), "retain_weight": (1.0, 3.0, 10.0, 30.0, 100.0, 1200.0)},
    ),
    "mmunlearner": Method("Huo et al. 2025", terms.ASCENT, terms.DESCENT, grid=_RATES),
    "manu": Method("Liu et al., ACL 2025", grid={"share": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)}),
    "depn": Method("Wu et al. 2023", own={"threshold": 0.1}, grid={"threshold": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.1)}),
}  # fmt: skip


def default_settings(method: str, **changed: Any) -> Settings:
    """A method's settings: its source's, with changes. ValueError for an unknown method, TypeError for a setting."""
    return replace(Settings(**_described(method).own), **changed)


def _described(method: str) -> Method:
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    return METHODS[method]


def baseline(
    method: str,
    model: nn.Module,
    forget_batches: Sequence[Batch],
    retain_batches: Sequence[Batch],
    chosen: Settings | None = None,
    seed: int = 42,
    known: Known | None = None,
) -> tuple[Edit, pd.DataFrame]:
    """Unlearn by a baseline; the model is vanilla before and after.

    Args:
        method: a name of `METHODS`.
        model: the vanilla model, no parameter taking a gradient.
        forget_batches: encoded with answers, one modality a batch; for `idk` those of `refusals.refusing`.
        retain_batches: the same, of people to keep.
        chosen: settings; None: the source's.
        seed: order of batches.
        known: what was found out about the vanilla model, filled and read here: give one dictionary to all that start from the
            same model and batches, and references and masks are computed once.

    Returns:
        The edit, and one row a step: step, loss_forget, loss_retain, loss; no rows for a method that prunes.

    Raises:
        ValueError: an unknown method, no batches, a layer that the model does not have, or a loss that is not finite.
    """
    described, chosen = _described(method), chosen or default_settings(method)
    known = {} if known is None else known
    metadata = {"method": method, "source": described.source, "seed": seed, "settings": asdict(chosen)}
    if described.forget is None:
        return _pruned(method, model, forget_batches, retain_batches, chosen, metadata)
    names, masks = _trained(method, model, chosen), None
    if method == "mmunlearner":
        names = [name for name, _ in model.named_parameters()]
        key = ("masks", chosen.saliency)
        if key not in known:
            known[key] = saliency.saliency_masks(
                model, forget_batches, retain_batches, names, chosen.saliency
            )
        masks = known[key]
    sides = (described.forget, forget_batches), (described.retain, retain_batches)
    return train(model, *sides, chosen, seed, names, masks, metadata, known)


def _pruned(
    method: str,
    model: nn.Module,
    forget: Sequence[Batch],
    retain: Sequence[Batch],
    chosen: Settings,
    metadata: dict,
) -> tuple[Edit, pd.DataFrame]:
    if not forget or not retain:
        raise ValueError(f"{method} needs batches of both sets; got {len(forget)} and {len(retain)}")
    sets = (forget, retain) if method == "manu" else (forget,)
    choose = neurons.manu_paths if method == "manu" else neurons.depn_paths
    made = prune(model, choose(model, *sets, chosen))
    return replace(made, metadata=made.metadata | metadata), pd.DataFrame(columns=COLUMNS)


def _trained(method: str, model: nn.Module, chosen: Settings) -> list[str] | None:
    """The weights that RMU trains: the down projections of its layer and of the two below; None for other methods."""
    if not method.startswith("rmu"):
        return None
    n_layers = len(text_layers(model))
    if chosen.layer_index >= n_layers:
        raise ValueError(
            f"layer_index {chosen.layer_index}: the model's decoder layers are 0 to {n_layers - 1}"
        )
    below = range(max(0, chosen.layer_index - 2), chosen.layer_index + 1)
    return [f"{ffns(model, 'text')[layer].output_name}.weight" for layer in below]
