"""Controls by hand: MANU's four importances, permutations, rankings and aggregates."""

import pytest
import torch

from mipnb.benchmarks import Question
from mipnb.evidence.activations import Sums
from mipnb.evidence.controls import (
    EPSILON,
    largest_activation,
    manu,
    permuted_answers,
    random_rankings,
)
from mipnb.paths import select
from mipnb.ranking import adjusted, aggregated
from mipnb.scores import Scores


def sums(values):
    """Of one layer, activations (positions, n_neurons) of kind 0."""
    z = torch.tensor(values, dtype=torch.float64)
    terms = (z, z.abs(), z.square(), (z.abs() > 0.1).double())
    return Sums(torch.tensor([float(len(z))]), *(term.sum(0)[None, None] for term in terms))


def scores(values, names=None, **fields):
    values = torch.tensor(values, dtype=torch.float32)[:, None]  # one layer
    names = names or tuple(f"p{i}/0" for i in range(len(values)))
    return Scores("text", values, tuple(names), "f" * 16, {"kind": "igi"} | fields)


def test_manu_by_hand():
    m, t = sums([[1.0, 0.2], [3.0, 0.2]]), sums([[1.0, 0.2], [-1.0, 0.05]])
    retain = {"image_text": sums([[1.0, 0.5], [1.0, 0.0]]), "text": sums([[0.5, 0.5], [0.5, 0.5]])}
    found = manu({"image_text": m, "text": t}, retain).values[0]
    forget = (2 - 1) / 3 + 0 + (1 + 1) ** 0.5 + ((10 - 2) / 12) ** 0.5
    kept = (1 - 0.5) / 1.5 + 0 + 0 + ((2 - 0.5) / 2.5) ** 0.5
    assert found[0].item() == pytest.approx(forget / (kept + EPSILON), rel=1e-5)


def test_a_tower_without_text_inputs_counts_them_as_silent():
    found = manu({"image_text": sums([[1.0], [3.0]])}, {"image_text": sums([[2.0], [2.0]])}).values
    assert found.item() == pytest.approx(
        (3 + 1) / (3 + 0), rel=1e-5
    )  # I_abs = I_freq = I_rms = 1, I_var = 1 and 0


def test_largest_activation_is_of_magnitudes():
    assert largest_activation([sums([[-3.0, 1.0]]), sums([[-1.0, 2.0]])]).values.tolist() == [[2.0, 1.5]]


def test_random_rankings_differ_and_repeat():
    first, again = (random_rankings(torch.zeros(2, 30), 3, 5) for _ in range(2))
    assert [one.top([3, 3]) for one in first] == [one.top([3, 3]) for one in again]
    assert len({one.top([3, 3]) for one in first}) == 3
    assert [one.draw for one in first] == [0, 1, 2]


def test_everybody_gets_somebody_elses_answer():
    questions = [
        Question(person, "FT", f"Who? {i}", f"answer of {person}") for person in "abc" for i in range(4)
    ]
    found = permuted_answers(questions, 1)
    assert all(q.person_id not in q.answer.split()[-1] for q in found)
    assert [q.prompt for q in found] == [q.prompt for q in questions]
    with pytest.raises(ValueError, match="one person"):
        permuted_answers(questions[:4], 1)


def test_difference_is_less_the_retain_mean_on_the_scale_of_both():
    found = adjusted(scores([[3.0, 1.0, 0.0]]), scores([[2.0, 0, 0], [-1.0, 4, 0]]), "difference")
    assert found[0, 0].tolist() == [2.5, -1.0, 0.0]


def test_projection_leaves_no_retain_direction():
    retain = scores([[2.0, 0, 0], [-1.0, 0, 0]])
    left = adjusted(scores([[3.0, 1.0, 0.0]]), retain, "projected")[0, 0]
    assert left.tolist() == [
        0,
        0.25,
        0,
    ]  # shares of the layer: 3/4 and 1/4, the first of them a retain direction
    rich = scores([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    assert adjusted(scores([[3.0, 1.0, 2.0]]), rich, "projected").abs().max() < 1e-6
    silent = scores([[0.0, 0, 0]])
    assert adjusted(scores([[3.0, 1.0, 0.0]]), silent, "projected")[0, 0].tolist() == [0.75, 0.25, 0]


def test_people_vote_once_each_however_many_questions_they_have():
    names = ("a/0", "a/1", "a/2", "b/0", "c/0")
    found = scores([[9.0, 1, 0], [9, 1, 0], [9, 1, 0], [0, 1, 0], [0, 1, 0]], names)
    assert select(found, None, 1, "forget", "vote").layers == ((0,),)
    assert select(found, None, 1, "forget", "people_vote").layers == ((1,),)


def test_people_take_turns():
    names = ("a/0", "b/0", "c/0")
    found = scores([[9.0, 8, 0, 0, 1], [9, 8, 0, 0, 1], [0, 0, 1, 0.5, 0]], names)
    assert select(found, None, 2, "forget", "mean").layers == ((0, 1),)
    assert select(found, None, 2, "forget", "people_turns").layers == ((0, 2),)


def test_a_vote_orders_like_votes_and_then_means():
    found = scores([[5.0, 4, 0, 3], [5.0, 0, 4, 3]], ("a/0", "b/0"))
    order = aggregated(found.values, found, "vote", 2)[0].sort(descending=True).indices.tolist()
    assert order == [0, 1, 2, 3]


@pytest.mark.parametrize("ranking", ["forget", "contrast"])
@pytest.mark.parametrize("aggregate", ["vote", "people_vote", "people_turns", "union"])
def test_a_sample_without_a_score_neither_votes_nor_has_a_turn(ranking, aggregate):
    """What the retain set uses least, or else neuron 0, would be its best."""
    retain = scores([[1.0, 3, 2, 4]])
    heard, silent = [0.0, 0, 5, 9], [0.0] * 4
    alone = select(scores([heard], ["a/0"]), retain, 2, ranking, aggregate)
    beside = scores([heard, silent, silent, silent], ["a/0", "b/0", "c/0", "d/0"])
    assert select(beside, retain, 2, ranking, aggregate).layers == alone.layers == ((2, 3),)
