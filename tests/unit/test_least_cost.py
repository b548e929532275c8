"""What cannot be shared, counted by hand and told."""

import pytest

from mipnb.least_cost import greedy_operations, least_cost_sentence
from mipnb.passes import Question
from mipnb.shapes import find_config, read_shape

POCKET = read_shape(*find_config("data/pocket/vanilla"))
LARGE = read_shape(*find_config("Qwen2.5-VL-3B-Instruct"))


def test_without_a_tower_to_speak_of_the_language_model_is_all():
    shares = greedy_operations(POCKET, Question(4000, 7, 4), 4)
    layers = POCKET.vision.layers
    assert shares["own"] == pytest.approx((1 + 3 * layers) / (4 * layers), rel=0.2)
    assert shares["greedy"] == pytest.approx(shares["own"], rel=0.02)


def test_the_larger_the_tower_the_more_is_shared():
    small, large = (greedy_operations(POCKET, Question(40, 7, patches), 4) for patches in (36, 900))
    assert large["own"] < small["own"] < small["greedy"] < 1


def test_blocks_above_the_scaled_one_cannot_be_shared_either():
    """By hand, the tower being nearly all: own passes go through the blocks above, forward and back; plain ones through all."""
    layers, share = POCKET.vision.layers, greedy_operations(POCKET, Question(8, 1, 40_000), 4)
    own = sum(3 * 2 * (layers - 1 - block) for block in range(layers)) + 2 * layers
    plain = sum(4 * (layers + layers - block) for block in range(layers))
    assert own / plain < share["own"] < own / plain + 0.15, "and through the scaled one's last product"


def test_tokens_before_the_picture_are_left_out_of_what_is_nobody_elses():
    whole, kept = (greedy_operations(POCKET, Question(40, 7, 36), 4, before=n) for n in (0, 20))
    assert kept["greedy"] == whole["greedy"]
    assert 0.6 * whole["own"] < kept["own"] < 0.85 * whole["own"]


def test_the_sentence_says_for_each_model_whether_the_bar_can_be_met():
    shapes = {"large": (LARGE, Question(174, 20, 256), 15), "pocket": (POCKET, Question(40, 7, 36), 5)}
    told = least_cost_sentence(shapes, 4)
    assert told.count("(a bar of 0.5 is out of reach)") == 2
    assert "is not out of reach" in least_cost_sentence(shapes, 4, bar=0.9)
