"""Learned gates beside the paths: how far one gets that searches the set itself, on the same questions."""

from __future__ import annotations

from mipnb.evidence.cases import Case
from mipnb.evidence.ranked import Ranked, even_sizes
from mipnb.evidence.recipes import size_of
from mipnb.learned_gates import learn_gates
from mipnb.locating import of_modality
from mipnb.models import fingerprint
from mipnb.paths import NeuronPath


def gates_of(case: Case, branch: str, top_k: int | None = None) -> Ranked:
    """The ranking "learned": of gates that are learned on the questions that a case's paths are located on; made once.

    Args:
        case: model and questions; `trial_gate_steps` of its parameters says how long to learn.
        branch: "text" or "vision".
        top_k: neurons per layer that are silenced while learning; by default as many as the trial silences.
    """
    top_k = size_of(case, branch) if top_k is None else top_k
    params, (modality,) = case.params, case.modalities(branch)

    def make() -> Ranked:
        sets = (of_modality(part, modality) for part in (case.forget, case.retain))
        how = (params.trial_gate_steps, params.batch_size, params.seed, params.device)
        return Ranked("learned", learn_gates(case.model, case.processor, *sets, branch, top_k, *how))

    return case.remembered(("learned", branch, case.people, top_k), make)


def learned_path(case: Case, branch: str, top_k: int) -> NeuronPath:
    """What is cut from it, top_k neurons of every layer, as a path that `reuse_paths` takes."""
    ranked = gates_of(case, branch, top_k)
    sizes = even_sizes(top_k, *ranked.values.shape)
    return ranked.path(branch, sizes, fingerprint(case.model), case.params.benchmark_dir)
