"""Locating in rounds, on a net where one neuron stands in for another, and on a tiny model."""

import io
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from planted import FORGET, NEURONS
from tiny_qwen import tiny_batch  # noqa: F401
from toys import HandMade, hand_batch

from mipnb import in_rounds
from mipnb.benchmarks import Question
from mipnb.in_rounds import add_up, locate_in_rounds
from mipnb.learned_gates import answered_under

OTHER = FORGET + 1


def stand_in(outs):
    """F = 0.05 + 0.9 max(a, 0.9 b): as long as a is there, b does nothing."""
    return 0.05 + 0.9 * torch.maximum(outs[0][:, 0, FORGET], 0.9 * outs[0][:, 0, OTHER])


def test_a_neuron_that_stands_in_for_another_is_found_once_that_one_is_silent():
    net, activation = HandMade(NEURONS, 1, stand_in), torch.zeros(4, 2, NEURONS)
    activation[:, :, [FORGET, OTHER]] = 1
    batch = hand_batch(activation.tolist())

    def gained(gates):
        return answered_under(net, net.ffns, "text", [batch], gates)[1]

    once, often = (add_up([2], NEURONS, rounds, gained)[0] for rounds in (1, 4))
    assert once[OTHER] == 0 < once[FORGET]
    assert often.topk(2).indices.tolist() == [FORGET, OTHER]
    assert often[OTHER] > 0


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


PLAIN, OTHER_FACE = Question("a", "FT", "Who?", "A."), Question("a", "VQA", "Who?", "A.", image="a.png")


@pytest.mark.parametrize(
    ("sets", "numbers", "told"),
    [
        (([PLAIN], []), {}, "the retain set has no questions"),
        (([], [PLAIN]), {}, "the forget set has no questions"),
        (([PLAIN], [OTHER_FACE]), {}, r"one modality are needed at a time; these are \['image_text'"),
        (([PLAIN], [PLAIN]), {"rounds": 0}, r"rounds is \[0\]; rounds take 1 of at least 1"),
        (([PLAIN], [PLAIN]), {"per_round": (0, 4)}, r"per_round is \[0, 4\]; rounds take 2 of at least 1"),
        (([PLAIN], [PLAIN]), {"per_round": (4,)}, r"per_round is \[4\]; rounds take 2"),
        (([PLAIN], [PLAIN]), {"batch_size": 0}, r"batch_size is \[0\]"),
        (([PLAIN], [PLAIN]), {"max_rows": -1}, r"max_rows is \[-1\]"),
        (([PLAIN], [PLAIN]), {"retain_weight": -0.5}, "retain_weight is -0.5; expected a number, 0 or more"),
        (([PLAIN], [PLAIN]), {"retain_weight": float("nan")}, "retain_weight is nan"),
        (([PLAIN], [PLAIN]), {"retain_weight": float("inf")}, "retain_weight is inf"),
    ],
)
def test_what_rounds_cannot_do_is_refused_before_any_pass(sets, numbers, told):
    with pytest.raises(ValueError, match=told):
        locate_in_rounds(None, None, *sets, "text", 2, **numbers)


@pytest.fixture
def asked(monkeypatch):
    """A model whose gradients are what the test says, and what went through it: forget questions are those about "f"."""
    passed, found = [], {"f": torch.tensor([[3.0, 1.0]]), "r": torch.tensor([[1.0, 2.0]])}

    def gradient(model, ffns, branch, batches, gates):
        parts = list(batches)
        passed.append(parts)
        return 0.5, found[parts[0][0].person_id]

    monkeypatch.setattr(in_rounds.models, "ffns", lambda model, branch: [SimpleNamespace(n_neurons=2)])
    for name in ("check_networks", "check_batch"):
        monkeypatch.setattr(in_rounds, name, lambda *given: None)
    monkeypatch.setattr(in_rounds, "encode", lambda processor, questions, device: questions)
    monkeypatch.setattr(in_rounds, "answered_under", gradient)
    return passed, found


def scores(**how):
    sets = ([Question(who, "FT", "Why?" + "?" * i, "A.") for i in range(8)] for who in "fr")
    return in_rounds.scores_in_rounds(torch.nn.Linear(1, 1), None, *sets, "text", 1, **how)


@pytest.mark.parametrize(
    ("how", "values"),
    [
        ({}, [2.0, -1.0]),
        ({"retain_weight": 2.5}, [0.5, -4.0]),
        ({"retain_weight": 0}, [3.0, 1.0]),
    ],
)
def test_scores_are_forget_less_the_weight_of_retain(asked, how, values):
    assert scores(rounds=3, **how).tolist() == [values]


@pytest.mark.parametrize(("who", "name"), [("f", "forget"), ("r", "retain")])
@pytest.mark.parametrize(
    ("gradient", "told"),
    [
        ([1.0, float("nan")], "are not finite"),
        ([float("inf"), 0.0], "are not finite"),
        ([0.0, 0.0], "is 0: the model is surer"),
    ],
)
def test_a_set_whose_gradients_rank_nothing_is_refused_by_name(asked, who, name, gradient, told):
    asked[1][who] = torch.tensor([gradient])
    with pytest.raises(ValueError, match=f"of the {name} set {told}"):
        scores()


def test_the_next_round_looks_at_others_and_shorter_questions_go_first(asked):
    scores(rounds=2, per_round=(4, 3), batch_size=2)
    forget = [[q.prompt for part in parts for q in part] for parts in asked[0][::2]]
    assert [[len(part) for part in parts] for parts in asked[0]] == [[2, 2], [2, 1]] * 2
    assert sorted(forget[0] + forget[1]) == sorted("Why?" + "?" * i for i in range(8))
    assert all(prompts == sorted(prompts, key=len) for prompts in forget)


def test_where_memory_runs_out_half_as_many_questions_go_through_from_then_on(asked, monkeypatch):
    whole = in_rounds.answered_under

    def little(model, ffns, branch, batches, gates):
        parts = list(batches)
        if len(parts[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return whole(model, ffns, branch, parts, gates)

    monkeypatch.setattr(in_rounds, "answered_under", little)
    with pytest.warns(
        RuntimeWarning, match="out of memory with 4 questions at a time: going on with 2"
    ) as told:
        found = scores(rounds=3, batch_size=4)
    assert len(told) == 1
    assert found.tolist() == [[2.0, -1.0]]


def test_the_largest_question_has_the_largest_picture():
    def question(side, prompt):
        stream = io.BytesIO()
        Image.new("RGB", (side, side)).save(stream, "PNG")
        return Question("a", "VQA", prompt, "A.", image=stream.getvalue())

    small, large = question(8, "A long question, with many words?"), question(9, "Who?")
    assert max([small, large], key=in_rounds._size) == large
    assert max([PLAIN, small], key=in_rounds._size) == small


def test_a_budget_is_held_against_the_most_pixels_and_the_most_text(asked, monkeypatch):
    seen = []

    def within(memory_gb, probe, n_steps):
        seen.append([question.prompt for question in probe.batch])
        return 1

    monkeypatch.setattr(in_rounds, "rows_within", within)
    monkeypatch.setattr(in_rounds, "_size", lambda q: (9 if q.prompt == "Why?" else 1, len(q.prompt)))
    scores(rounds=1, memory_gb=1.0)
    assert seen == [["Why?", "Why?" + "?" * 7]]
    assert all(len(part) == 1 for parts in asked[0] for part in parts)
