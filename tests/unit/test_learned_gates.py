"""Gates learned on nets whose answers hang on planted neurons."""

import itertools

import pytest
import torch
from planted import FORGET, NEURONS, RETAIN, planted_asked, planted_net
from toys import HandMade, hand_batch, tiny_vl, toy_scores

from mipnb import learned_gates
from mipnb.batches import pick
from mipnb.benchmarks import Question
from mipnb.learned_gates import _learned, _silenced, answered_under, layer_sizes, learn_path

OTHER = FORGET + 1
PLAIN, OTHER_FACE = Question("a", "FT", "Who?", "A."), Question("a", "VQA", "Who?", "A.", image=b"a picture")


def learned(net, forget, retain, size, steps=60):
    pairs = itertools.repeat(([forget], [retain]))
    return _learned(net, net.ffns, "text", pairs, [size] * len(net.ffns), steps, seed=1)


def test_the_planted_neuron_is_silenced_first_and_the_retain_sets_last():
    order = learned(planted_net(), *planted_asked().batches, size=4)[0].argsort(descending=True).tolist()
    assert order[0] == FORGET
    assert order[-1] == RETAIN


def test_a_neuron_that_stands_in_for_another_is_found_although_scores_miss_it():
    """F = 0.05 + 0.9 max(a, 0.9 b): on the straight way b never counts, and with a silenced it is all that is left."""

    def head(outs):
        either = torch.maximum(outs[0][:, 0, FORGET], 0.9 * outs[0][:, 0, OTHER])
        return 0.05 + 0.9 * (either + outs[0][:, 0, RETAIN])

    net, activation = HandMade(NEURONS, 1, head), torch.zeros(4, 2, NEURONS)
    forget, retain = activation.clone(), activation.clone()
    forget[:, :, [FORGET, OTHER]] = 1
    retain[:, :, RETAIN] = 1
    forget, retain = hand_batch(forget.tolist()), hand_batch(retain.tolist())
    scores = toy_scores(net, forget, search="one_pass").values.mean(0)[0]
    assert scores[FORGET] > 0.5
    assert scores[OTHER] == 0
    chosen = learned(net, forget, retain, 2)[0].topk(2).indices
    assert set(chosen.tolist()) == {FORGET, OTHER}


def test_as_many_as_asked_are_silent_in_each_layer_and_the_gradient_reaches_all():
    weights = torch.randn(3, 10, requires_grad=True)
    silent = _silenced(weights, [4, 0, 10])
    assert silent.sum(1).tolist() == pytest.approx([4, 0, 10])
    assert set(silent.detach().round(decimals=5).abs().flatten().tolist()) == {0.0, 1.0}
    silent.sum().backward()
    assert (weights.grad > 0).all()


def test_batches_do_not_matter_to_the_mean_and_its_gradient():
    net, batch = planted_net(), planted_asked(5).batches[0]
    net.requires_grad_(False)
    gates = torch.linspace(0.1, 0.9, NEURONS)[None]
    whole = answered_under(net, net.ffns, "text", [batch], gates)
    parts = [pick(batch, torch.tensor(rows)) for rows in ([0, 1, 2], [3, 4])]
    parts = answered_under(net, net.ffns, "text", parts, gates)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    assert whole[0] == pytest.approx(0.05 + 0.9 * gates[0, FORGET].item(), rel=1e-5)
    assert torch.allclose(parts[1], whole[1], rtol=1e-5)
    assert whole[1][0, FORGET].item() == pytest.approx(0.9, rel=1e-5)


def test_a_graph_that_is_cut_gives_gradients_of_nothing():
    net, batch = (
        HandMade(NEURONS, 1, lambda outs: outs[0].sum((1, 2)).detach().sigmoid()),
        planted_asked().batches[0],
    )
    gates = torch.ones(1, NEURONS)
    value, gradient = answered_under(net, net.ffns, "text", [batch], gates)
    assert 0 < value <= 1
    assert gradient.tolist() == [[0.0] * NEURONS]


def test_gates_are_not_learned_from_gradients_of_nothing():
    """With a cut graph the first, random order would be all there is."""
    batches = [batch | {"a1": batch["a0"]} for batch in planted_asked().batches]
    cut = HandMade(NEURONS, 1, lambda outs: outs[0].sum((1, 2)).detach().sigmoid())
    with pytest.raises(ValueError, match="every gradient of the forget set is 0"):
        learned(cut, *batches, size=1, steps=3)
    half = HandMade(NEURONS, 2, lambda outs: (outs[0].detach() + outs[1]).mean((1, 2)).sigmoid())
    with pytest.raises(ValueError, match=r"no gradient reaches text layers \[0\]"):
        learned(half, *batches, size=1, steps=3)
    broken = HandMade(NEURONS, 1, lambda outs: (outs[0] * float("nan")).sum((1, 2)))
    with pytest.raises(ValueError, match="gradients of the forget set are not finite"):
        learned(broken, *batches, size=1, steps=3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was(mode):
    net = planted_net().train()
    before, batches = net.outs[0].weight.clone(), planted_asked().batches
    with mode():
        learned(net, *batches, size=1, steps=3)
    assert torch.equal(net.outs[0].weight, before)
    assert net.training
    assert net.outs[0].weight.requires_grad
    assert net.outs[0].weight.grad is None
    assert not net.outs[0]._forward_pre_hooks


@pytest.mark.parametrize("sizes", [[-1], [NEURONS + 1], [1, 1]])
def test_sizes_fit_the_layers(sizes):
    with pytest.raises(ValueError, match=f"expected 1, each from 0 to a layer's {NEURONS} neurons"):
        layer_sizes(sizes, 1, NEURONS)
    assert layer_sizes(NEURONS, 2, NEURONS) == [NEURONS, NEURONS]


def test_both_sets_are_needed():
    with pytest.raises(ValueError, match="the retain set has no questions"):
        learn_path(None, None, [PLAIN], [], "text", [1])
    with pytest.raises(
        ValueError, match=r"one modality are needed at a time; these are \['image_text', 'text'\]"
    ):
        learn_path(None, None, [PLAIN], [OTHER_FACE], "text", [1])


def test_a_vision_tower_needs_pictures(monkeypatch):
    batch = {"labels": torch.tensor([[-100, 1]]), "input_ids": torch.tensor([[5, 6]])}
    monkeypatch.setattr(learned_gates, "encode", lambda *given, **how: batch)
    with pytest.raises(ValueError, match="the vision branch needs image questions"):
        learn_path(tiny_vl(), None, [PLAIN], [PLAIN], "vision", [1, 1, 1])
