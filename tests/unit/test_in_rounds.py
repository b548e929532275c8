"""Locating in rounds, on a net where one neuron stands in for another, and on a tiny model."""

import pytest
import torch
from planted import FORGET, NEURONS
from tiny_qwen import tiny_batch  # noqa: F401
from toys import HandMade, hand_batch, toy_scores

from mipnb.benchmarks import Question
from mipnb.in_rounds import locate_in_rounds, part_of_round, rank_in_rounds

OTHER = FORGET + 1


def stand_in(outs):
    """F = 0.05 + 0.9 max(a, 0.9 b): as long as a is there, b does nothing."""
    return 0.05 + 0.9 * torch.maximum(outs[0][:, 0, FORGET], 0.9 * outs[0][:, 0, OTHER])


@pytest.mark.parametrize(("rounds", "found"), [(1, False), (2, True), (4, True)])
def test_a_neuron_that_stands_in_for_another_is_found_once_that_one_is_silent(rounds, found):
    net, activation = HandMade(NEURONS, 1, stand_in), torch.zeros(4, 2, NEURONS)
    activation[:, :, [FORGET, OTHER]] = 1
    batch = hand_batch(activation.tolist())

    def ranked(number):
        return toy_scores(net, batch, search="gradient").values.mean(0)

    values = rank_in_rounds(net.ffns, rounds, 2, ranked)[0]
    assert values.argmax() == FORGET
    assert (OTHER in values.topk(2).indices.tolist()) == found or OTHER == 0


def test_rounds_take_equal_parts_and_the_last_one_ranks_the_rest():
    net = HandMade(6, 2, lambda outs: outs[0].sum((1, 2)))
    seen = []

    def ranked(number):
        seen.append(number)
        return torch.tensor([[1.0, 2, 3, 4, 5, 6], [6.0, 5, 4, 3, 2, 1]]) * (-1) ** number

    values = rank_in_rounds(net.ffns, 2, 4, ranked)
    assert seen == [0, 1]
    # two best of round 0, then two best of round 1, which turns the order round, then its others
    assert [row.argsort(descending=True).tolist() for row in values] == [
        [5, 4, 0, 1, 2, 3],
        [0, 1, 5, 4, 3, 2],
    ]
    with pytest.raises(ValueError, match=r"top_k is 7, a layer has 6 neurons"):
        rank_in_rounds(net.ffns, 2, 7, ranked)
    with pytest.raises(ValueError, match="rounds is 0"):
        rank_in_rounds(net.ffns, 0, 2, ranked)


def test_a_neuron_that_gives_too_much_back_is_let_go_for_good_and_another_takes_its_place():
    net = HandMade(6, 1, lambda outs: outs[0].sum((1, 2)))
    scored, looked = [], []
    bad = {1: 1, 2: 3, 3: None}

    def ranked(number):
        scored.append(number)
        return torch.tensor([[6.0, 5, 4, 3, 2, 1]])

    def too_dear(number, chosen):
        looked.append((number, [list(row) for row in chosen]))
        return torch.tensor([[neuron == bad[number] for neuron in range(6)]])

    values = rank_in_rounds(net.ffns, 2, 4, ranked, too_dear)
    assert looked == [(1, [[0, 1]]), (2, [[0, 2, 3, 4]]), (3, [[0, 2, 4, 5]])]
    assert scored == [0, 1, 2]  # a round more, for the neuron let go after the last; none for a full choice
    assert values[0].argsort(descending=True).tolist() == [0, 2, 4, 5, 1, 3]


def test_neurons_let_go_come_last_even_if_they_must_fill_the_choice():
    net = HandMade(4, 1, lambda outs: outs[0].sum((1, 2)))

    def too_dear(number, chosen):
        return torch.tensor([[True, True, False, False]])

    values = rank_in_rounds(net.ffns, 2, 3, lambda number: torch.tensor([[4.0, 3, 2, 1]]), too_dear)
    assert values[0].argsort(descending=True).tolist() == [2, 3, 0, 1]


def test_rounds_are_no_more_than_neurons():
    net, scored = HandMade(4, 1, lambda outs: outs[0].sum((1, 2))), []
    rank_in_rounds(net.ffns, 8, 2, lambda number: scored.append(number) or torch.tensor([[4.0, 3, 2, 1]]))
    assert scored == [0, 1]


PLAIN, OTHER_FACE = Question("a", "FT", "Who?", "A."), Question("a", "VQA", "Who?", "A.", image="a.png")


@pytest.mark.parametrize(
    ("sets", "choices", "told"),
    [
        (([PLAIN], []), {}, "the retain set has no questions"),
        (([PLAIN], [OTHER_FACE]), {}, r"one modality; these are \['image_text', 'text'\]"),
        (([PLAIN], [PLAIN]), {"ranking": "contrst"}, "ranking 'contrst', aggregate 'mean'; rounds go by"),
        (([PLAIN], [PLAIN]), {"aggregate": "union"}, "aggregate 'union'; rounds go by"),
        (([PLAIN], [PLAIN]), {"resume": "here"}, "leave `resume` out"),
    ],
)
def test_what_rounds_cannot_do_is_refused_before_any_pass(sets, choices, told):
    with pytest.raises(ValueError, match=told):
        locate_in_rounds(None, None, *sets, "text", 2, **choices)


def test_every_round_looks_at_other_questions_until_all_were_looked_at():
    asked = list("abcdef")
    assert ["".join(part_of_round("forget", asked, n)) for n in range(3)] == ["ace", "bdf", "ace"]
    assert ["".join(part_of_round("retain", asked, n)) for n in range(5)] == ["ae", "bf", "c", "d", "ae"]
    assert ["".join(part_of_round("retain", asked[:2], n)) for n in range(3)] == ["a", "b", "a"]
