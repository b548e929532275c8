"""Learned gates beside the paths: what is found by searching the set itself, on the same questions."""

from __future__ import annotations

from collections.abc import Sequence

from mipnb.evidence.cases import Case
from mipnb.evidence.ranked import Ranked
from mipnb.learned_gates import learn_gates
from mipnb.locating import of_modality
from mipnb.models import fingerprint
from mipnb.paths import NeuronPath


def gates_of(case: Case, branch: str, sizes: Sequence[int]) -> Ranked:
    """The ranking "learned", which is about these sizes alone: gates learned on questions that a case's paths are located on.

    Args:
        case: model and questions, those of the branch's first modality; `trial_gate_steps` says how long to learn.
        branch: "text" or "vision".
        sizes: neurons of each layer that are silenced.
    """
    params, modality = case.params, case.modalities(branch)[0]
    sets = (of_modality(part, modality) for part in (case.forget, case.retain))
    how = {"steps": params.trial_gate_steps, "batch_size": params.batch_size}
    how |= {"seed": params.seed, "device": params.device}
    return Ranked("learned", learn_gates(case.model, case.processor, *sets, branch, sizes, **how))


def learned_path(case: Case, like: NeuronPath) -> NeuronPath:
    """Learned gates as a path of another one's branch and sizes, which `reuse_paths` takes."""
    ranked = gates_of(case, like.branch, like.sizes)
    return ranked.path(like.branch, like.sizes, fingerprint(case.model), case.params.benchmark_dir)
