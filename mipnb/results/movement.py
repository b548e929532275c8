"""What an unlearned model does inside and at its output, question by question: the data of Fig. 6 and Fig. 7."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from mipnb.batches import IGNORED, Batch, answer_tokens, batches, encode, to_device
from mipnb.benchmarks import Question
from mipnb.hooks import captured
from mipnb.models import BRANCHES, ffns, input_device

#: how many words of the vocabulary the features hold
N_WORDS = 64
#: makes the unlearned model, for the length of a `with` block
Subject = Callable[[], AbstractContextManager[nn.Module]]


@dataclass(frozen=True, eq=False)
class Seen:
    """One batch through one model.

    Attributes:
        activations, outputs: branch -> per layer (positions, neurons) and (positions, hidden), the FFN's neurons and what
            it adds to the residual stream; real positions only; no vision branch without pictures.
        logprobs: float32 (batch, vocabulary) of the first token of the answer.
    """

    activations: Mapping[str, Sequence[Tensor]]
    outputs: Mapping[str, Sequence[Tensor]]
    logprobs: Tensor


def see(model: nn.Module, batch: Batch) -> Seen:
    """Run a batch (encoded with answers) and keep what Fig. 6 and 7 are made of."""
    networks = {branch: ffns(model, branch) for branch in BRANCHES}
    first = (batch["labels"] != IGNORED).int().argmax(
        1
    ) - 1  # the position that predicts the answer's first token
    positions, at = first.unique(return_inverse=True)
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    with torch.no_grad(), captured(networks["text"]) as text, captured(networks["vision"]) as vision:
        logits = model(**inputs, use_cache=False, logits_to_keep=positions).logits
    kept = {"text": [_real(z, batch["attention_mask"]) for z in text]}
    if vision[0] is not None:
        kept["vision"] = [z.flatten(0, -2) for z in vision]
    with torch.no_grad():
        outputs = {
            branch: [network.output(z) for network, z in zip(networks[branch], found, strict=True)]
            for branch, found in kept.items()
        }
    rows = torch.arange(len(at), device=logits.device)
    return Seen(kept, outputs, logits[rows, at.to(logits.device)].float().log_softmax(-1))


def _real(activation: Tensor, mask: Tensor) -> Tensor:
    """Activations without padding: (positions, neurons)."""
    return activation.flatten(0, 1)[mask.bool().flatten().to(activation.device)]


def distances(before: Seen, after: Seen) -> list[tuple[str, int, float, float, int]]:
    """How far each FFN has moved: (branch, layer, activation, value, positions), both distances summed over positions.

    activation is the mean over neurons of |z - z_vanilla| (the paper's Fig. 6); value is |o - o_vanilla| / |o_vanilla|, o
    what the FFN adds to the residual stream, which can be compared between layers.
    """
    rows = []
    for branch, layers in before.activations.items():
        for layer, (z, moved) in enumerate(zip(layers, after.activations[branch], strict=True)):
            o, other = (seen.outputs[branch][layer].float() for seen in (before, after))
            share = (other - o).norm(dim=-1) / o.norm(dim=-1).clamp_min(1e-12)
            apart = (moved.float() - z.float()).abs().mean(-1)
            rows.append((branch, layer, float(apart.sum()), float(share.sum()), len(z)))
    return rows


def frequent_words(processor, questions: Iterable[Question], count: int = N_WORDS) -> list[int]:
    """The tokens that answers hold most often, by frequency, then by number."""
    counts: Counter[int] = Counter()
    for answer, often in Counter(question.answer for question in questions).items():  # many are the same
        for token in answer_tokens(processor, answer):
            counts[token] += often
    return [token for token, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]


def features(logprobs: Tensor, words: Sequence[int]) -> Tensor:
    """Log-probabilities of some words, then entropy (nats) and the largest: float32 (batch, words + 2)."""
    entropy = -(logprobs.exp() * logprobs).sum(-1, keepdim=True)
    return torch.cat([logprobs[:, list(words)], entropy, logprobs.amax(-1, keepdim=True)], dim=-1).cpu()


def movement(
    vanilla: nn.Module,
    processor,
    subject: Subject,
    asked: Mapping[str, Sequence[Question]],
    words: Sequence[int],
    batch_size: int = 32,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An unlearned model beside the vanilla one, on the same questions with their right answers.

    Args:
        vanilla: the vanilla model, no edit in it.
        processor: its own.
        subject: makes the unlearned model; it may be the same one with an edit in it.
        asked: split -> questions.
        words: tokens whose log-probabilities are kept (`frequent_words`).
        batch_size: questions at a time.

    Returns:
        residuals: branch, layer, split, modality, value, activation, means over positions (see `distances`);
        logits: split, modality, person_id, question (task and prompt), features (see `features`) of the unlearned model.
    """
    sums: dict[tuple, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    rows = []
    for split, questions in asked.items():
        for group in batches(questions, batch_size):
            batch = to_device(encode(processor, group), input_device(vanilla))
            before = see(vanilla, batch)
            with subject() as model:
                after = see(model, batch)
            for branch, layer, *found in distances(before, after):
                key = (branch, layer, split, group[0].modality)
                sums[key] = [old + new for old, new in zip(sums[key], found, strict=True)]
            for q, values in zip(group, features(after.logprobs, words).numpy(), strict=True):
                rows.append((split, q.modality, q.person_id, f"{q.task} {q.prompt}", values))
    residuals = [(*key, value / n, apart / n) for key, (apart, value, n) in sums.items()]
    columns = ["branch", "layer", "split", "modality", "value", "activation"]
    logits = pd.DataFrame(rows, columns=["split", "modality", "person_id", "question", "features"])
    return pd.DataFrame(residuals, columns=columns), logits
