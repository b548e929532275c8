"""Locating in rounds, on a net where one neuron stands in for another, and on a tiny model."""

import pytest
import torch
from planted import FORGET, NEURONS
from tiny_qwen import tiny_batch  # noqa: F401
from toys import HandMade, hand_batch

from mipnb.benchmarks import Question
from mipnb.in_rounds import add_up, locate_in_rounds
from mipnb.learned_gates import answered_under

OTHER = FORGET + 1


def stand_in(outs):
    """F = 0.05 + 0.9 max(a, 0.9 b): as long as a is there, b does nothing."""
    return 0.05 + 0.9 * torch.maximum(outs[0][:, 0, FORGET], 0.9 * outs[0][:, 0, OTHER])


@pytest.mark.parametrize(("rounds", "found"), [(1, False), (4, True)])
def test_a_neuron_that_stands_in_for_another_is_found_once_that_one_is_silent(rounds, found):
    net, activation = HandMade(NEURONS, 1, stand_in), torch.zeros(4, 2, NEURONS)
    activation[:, :, [FORGET, OTHER]] = 1
    batch = hand_batch(activation.tolist())

    def gained(gates):
        return answered_under(net, net.ffns, "text", [batch], gates)[1]

    values = add_up([2], NEURONS, rounds, gained)[0]
    assert values.argmax() == FORGET
    assert (OTHER in values.topk(2).indices.tolist()) == found or OTHER == 0


def test_the_choice_grows_in_half_of_the_rounds_and_is_made_anew_by_the_sum():
    scores = torch.tensor([[6.0, 5, 4, 3, 2, 1], [0.0, 0, 0, 1, 1, 1]])
    turned = torch.tensor([[-9.0, 0, 0, 0, 0, 9], [0.0, 0, 0, 0, 0, 0]])
    seen = []

    def gained(gates):
        seen.append([[n for n, gate in enumerate(row) if gate == 0] for row in gates.tolist()])
        return turned if len(seen) == 3 else scores

    values = add_up([4, 2], 6, 5, gained)
    half, whole, anew = [[0, 1], [3]], [[0, 1, 2, 3], [3, 4]], [[1, 2, 3, 5], [3, 4]]
    assert seen == [[[], []], half, whole, anew, [[0, 1, 2, 5], [3, 4]]]
    torch.testing.assert_close(values, (4 * scores + turned) / 5)


def test_a_single_round_scores_the_untouched_model():
    seen = []
    values = add_up([3], 4, 1, lambda gates: seen.append(gates.tolist()) or torch.tensor([[4.0, 3, 2, 1]]))
    assert seen == [[[1, 1, 1, 1]]]
    assert values.tolist() == [[4, 3, 2, 1]]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([1.0, float("nan")], r"scores of round 0 are not finite"),
        ([1.0, float("inf")], r"scores of round 0 are not finite"),
        ([0.0, 0.0], r"every score of round 0 is 0"),
    ],
)
def test_scores_that_rank_nothing_are_refused(scores, told):
    with pytest.raises(ValueError, match=told):
        add_up([1], 2, 3, lambda gates: torch.tensor([scores]))
    with pytest.raises(ValueError, match="rounds is 0"):
        add_up([1], 2, 0, lambda gates: gates)


PLAIN, OTHER_FACE = Question("a", "FT", "Who?", "A."), Question("a", "VQA", "Who?", "A.", image="a.png")


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (([PLAIN], []), "the retain set has no questions"),
        (([], [PLAIN]), "the forget set has no questions"),
        (([PLAIN], [OTHER_FACE]), r"one modality; these are \['image_text', 'text'\]"),
    ],
)
def test_what_rounds_cannot_do_is_refused_before_any_pass(sets, told):
    with pytest.raises(ValueError, match=told):
        locate_in_rounds(None, None, *sets, "text", 2)
