"""A net in which one neuron carries the answers of the forget set and another those of the retain set."""

import pandas as pd
import torch
from toys import HandMade, hand_batch

from mipnb.evidence.asked import Asked

NEURONS, FORGET, RETAIN = 40, 3, 5


def planted_net() -> HandMade:
    """F = 0.05 + 0.9 * (activations of neurons 3 and 5, at most 1): an answer is said where F is above a half."""

    def head(outs):
        return 0.05 + 0.9 * outs[0][..., [FORGET, RETAIN]].sum((1, 2)).clamp(0, 1)

    return HandMade(NEURONS, 1, head)


def planted_asked(n_people: int = 8) -> Asked:
    """People of both sets, one question each, who differ in noise on neurons that do nothing."""
    torch.manual_seed(0)
    batches, rows = [], []
    for group, neuron in (("forget", FORGET), ("retain", RETAIN)):
        activation = torch.rand(n_people, 2, NEURONS) * 2
        activation[..., [FORGET, RETAIN]] = 0
        activation[:, 0, neuron] = 1
        batches.append(hand_batch(activation.tolist()))
        rows += [(group, "text", f"{group}{index}") for index in range(n_people)]
    return Asked(pd.DataFrame(rows, columns=["set", "modality", "person_id"]), tuple(batches))
