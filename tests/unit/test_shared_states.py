"""Vanilla states shared through a file: what one has computed, the other reads."""

import torch

from mipnb.shared_states import SharedStates


def batches():
    return [{"input_ids": torch.zeros(2, tokens, dtype=torch.int64)} for tokens in (3, 5, 4)]


def test_states_that_one_has_set_the_other_gets(tmp_path):
    own, others = batches(), batches()
    one, other = (SharedStates(tmp_path / "states.bin", part, width=6) for part in (own, others))
    assert one.get(id(own[1])) is None
    state = torch.randn(2, 5, 6)
    one[id(own[1])] = state
    assert torch.equal(other.get(id(others[1])), state)
    assert other.get(id(others[0])) is None
    assert other.get(id(others[2])) is None
    more = torch.randn(2, 4, 6)
    other[id(others[2])] = more
    assert torch.equal(one.get(id(own[2])), more)
    assert torch.equal(one.get(id(own[1])), state), "neighbours in the file stay as they were"
