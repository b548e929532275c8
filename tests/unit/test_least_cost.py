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
    assert shares["language model"] == pytest.approx((1 + 3 * layers) / (4 * layers), rel=0.2)
    assert shares["greedy"] == pytest.approx(shares["language model"], rel=0.02)


def test_the_larger_the_tower_the_more_is_shared():
    small, large = (greedy_operations(POCKET, Question(40, 7, patches), 4) for patches in (36, 900))
    assert large["language model"] < small["language model"] < small["greedy"] < 1


def test_the_sentence_says_whether_the_bar_can_be_met():
    told = least_cost_sentence({"large": (LARGE, Question(174, 20, 256))}, 4)
    assert "large 0.70, of which 0.59" in told
    assert "is out of reach of exact scores" in told
    assert "is not out of reach" in least_cost_sentence(
        {"large": (LARGE, Question(174, 20, 256))}, 4, bar=0.9
    )
