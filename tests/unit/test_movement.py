"""What Fig. 6 and 7 are made of: frequent words, features of an output, how far networks have moved."""

import math

import pytest
import torch
from tiny_qwen import tiny_batch, tiny_model

from mipnb.benchmarks import Question
from mipnb.models import BRANCHES, ffns
from mipnb.results import movement
from mipnb.results.movement import distances, features, frequent_words, see


def test_frequent_words_are_counted_in_every_answer_and_ties_go_by_number(monkeypatch):
    monkeypatch.setattr(
        movement, "answer_tokens", lambda processor, answer: [int(part) for part in answer.split()]
    )
    answers = ["7 7 3", "5 4", "5 4", "5 4", "9"]
    questions = [Question(f"p{i}", "GEN", "who", answer) for i, answer in enumerate(answers)]
    assert frequent_words(None, questions, 4) == [4, 5, 7, 3]


def test_features_are_some_words_the_entropy_and_the_largest():
    shares = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]).clamp_min(1e-30)
    found = features(shares.log(), [2, 0])
    expected = [math.log(0.25), math.log(0.5), 1.5 * math.log(2), math.log(0.5)]
    assert found[0].tolist() == pytest.approx(expected)
    assert found[1, 1:].tolist() == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_network_whose_output_is_doubled_has_moved_by_its_own_length(branch):
    model, batch = tiny_model(), tiny_batch(1, pictured=True, size=2)
    before, networks = see(model, batch), ffns(model, branch)
    assert not any(apart or share for *_, apart, share, _ in distances(before, see(model, batch)))
    with torch.no_grad():
        for parameter in networks[-1].output.parameters():
            parameter *= 2
    rows = {(found, layer): rest for found, layer, *rest in distances(before, see(model, batch))}
    for layer in range(len(networks)):
        apart, share, positions = rows[branch, layer]
        assert apart == 0, "the neurons themselves are as before"
        assert share == pytest.approx(positions if layer == len(networks) - 1 else 0, rel=1e-4)
