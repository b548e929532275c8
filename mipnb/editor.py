"""Training the edits of notebook 04, each by itself, here or in a helper (`lanes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import BaseModel
from torch import nn

from mipnb import trials
from mipnb.artefacts import PARTIAL, atomic_path, stage_dir
from mipnb.batches import Batch
from mipnb.editing import edit
from mipnb.edits import Edit
from mipnb.lanes import processes_of
from mipnb.models import load_model, run_model
from mipnb.params import subset
from mipnb.pools import States
from mipnb.reuse import edited_paths
from mipnb.shared_states import SharedStates

STAGE, BATCHES, STATES = "04_editing", "batches.pt", "states"
#: batches of the forget and of the retain set
Sets = tuple[list[Batch], list[Batch]]


@dataclass(frozen=True, eq=False)
class Editor:
    """Trains one edit a call.

    Attributes:
        params: of notebook 04.
        model: vanilla.
        batches: of the forget and of the retain set (`trials.edit_batches`).
        states: vanilla states of batches, computed once for all edits.
    """

    params: BaseModel
    model: nn.Module
    batches: Sets
    states: States = field(default_factory=dict)

    def __call__(self, which: tuple[str, int]) -> tuple[Edit, pd.DataFrame]:
        """The edit and its history (`editing.edit`); a run that was stopped within it goes on there.

        Args:
            which: "edited" or "random", and the seed; random neurons are those that notebook 03 drew for it.
        """
        method, seed = which
        index = seed - self.params.seed if method == "random" else None
        paths = edited_paths(self.params, self.model, index)
        kept = {"resume": stage_dir(self.params.run_dir, STAGE), "states": self.states}
        return edit(self.model, paths, *self.batches, trials.edit_config(self.params), seed, **kept)


def shared_editor(params: BaseModel, model: nn.Module, batches: Sets) -> Editor:
    """An editor whose batches, and their vanilla states, all processes have in memory once between them (`load_editor`).

    They lie in files in notebook 04's folder until that is through. If there is one process, it keeps its own.
    """
    if processes_of(params) == 1:
        return Editor(params, model, batches)
    folder = _folder(params)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{STATES}.*"):  # of a run that was stopped
        stale.unlink()
    with atomic_path(folder / BATCHES) as temporary:
        torch.save(batches, temporary)
    return _opened(params, model)


def _folder(params: BaseModel) -> Path:
    return stage_dir(params.run_dir, STAGE) / PARTIAL


def _opened(params: BaseModel, model: nn.Module) -> Editor:
    """An editor on what the files hold."""
    batches = torch.load(_folder(params) / BATCHES, mmap=True)
    width = model.get_input_embeddings().embedding_dim
    states = SharedStates(_folder(params) / f"{STATES}.bin", [*batches[0], *batches[1]], width)
    return Editor(params, model, batches, states)


def load_editor(values: Mapping[str, Any]) -> Editor:
    """An editor for a helper, from the values of notebook 04's parameters and what was shared (`shared_editor`)."""
    params = subset(values)
    vanilla = run_model(stage_dir(params.run_dir, "01_vanilla_model"))
    model = load_model(vanilla, params.dtype, params.device, attention=params.attention)
    return _opened(params, model)
