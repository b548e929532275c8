"""Learned gates beside the paths: found by searching the set itself, on what may be located on, or on what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mipnb.evidence.cases import Case
from mipnb.learned_gates import learn_path
from mipnb.locating import of_modality
from mipnb.paths import NeuronPath


def gates_of(case: Case, branch: str, sizes: Sequence[int], seen: bool = False) -> NeuronPath:
    """Gates learned on questions that a case's paths may be located on.

    Args:
        case: model and questions, those of the branch's first modality; `trial_gate_steps` says how long to learn.
        branch: "text" or "vision".
        sizes: neurons of each layer that are silenced.
        seen: whether to learn on the very questions that are asked: no way to find neurons, but it tells what can be reached.
    """
    params, modality = case.params, case.modalities(branch)[0]
    located = {"forget": case.forget, "retain": case.retain}
    sets = (of_modality((case.questions if seen else located)[group], modality) for group in located)
    how = {"steps": params.trial_gate_steps, "batch_size": params.batch_size, "seed": params.seed}
    how |= {"device": params.device, "benchmark": params.benchmark_dir}
    path = learn_path(case.model, case.processor, *sets, branch, sizes, **how)
    return replace(path, parameters=path.parameters | {"questions": "asked" if seen else "to locate on"})


def learned_path(case: Case, like: NeuronPath) -> NeuronPath:
    """Learned gates of another path's branch and sizes; `reuse_paths` takes them."""
    return gates_of(case, like.branch, like.sizes)
