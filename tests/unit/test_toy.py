"""The toy of the first notebook: its numbers are those worked out there by hand."""

import pytest
import torch

from mipnb.attribution import attribute
from mipnb.hooks import zeroed
from mipnb.toy import Toy, toy_batch, toy_probability

W1, W2, W3, W4 = 0.6, 0.4, 0.5, 0.3


def _scores(**choices):
    model, own = Toy(), {"search": "greedy", "top_k": 1, "fingerprint": "toy"}
    return attribute(model, toy_batch(), "text", ffns=model.ffns, **own, **choices)


def test_the_probability_is_the_formula():
    assert toy_probability(Toy()) == pytest.approx(0.3 + (W1 - W2 / 2) * (W3 + W4))


@pytest.mark.parametrize(
    ("neurons", "expected"), [(([0], []), 0.14), (([1], []), 0.78), (([0, 1], []), 0.3), (([0], [0]), 0.24)]
)
def test_silencing_is_the_formula_without_the_neuron(neurons, expected):
    model = Toy()
    with zeroed(model.ffns, neurons):
        assert toy_probability(model) == pytest.approx(expected)
    assert toy_probability(model) == pytest.approx(0.62)


def test_greedy_scores_by_hand_and_exactly_complete_with_gauss():
    found = _scores(rule="gauss", n_steps=4)
    first, second = found.values[0]
    torch.testing.assert_close(first, torch.tensor([W1 * (W3 + W4), -W2 / 2 * (W3 + W4)]))
    torch.testing.assert_close(second, (W1 / 2 - W2 / 2) * torch.tensor([W3, W4]))
    assert found.gap.max() < 1e-5
    assert found.f_zero.tolist()[0] == pytest.approx([0.3, 0.3])


def test_the_right_rule_misses_by_its_known_error():
    mean = sum(k / 4 for k in range(1, 5)) / 4
    second = _scores(rule="right", n_steps=4).values[0, 1]
    torch.testing.assert_close(second, (W1 * mean - W2 / 2) * torch.tensor([W3, W4]))
