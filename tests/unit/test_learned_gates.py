"""Gates learned on nets whose answers hang on planted neurons."""

import itertools

import pytest
import torch
from planted import FORGET, NEURONS, RETAIN, planted_asked, planted_net
from toys import HandMade, hand_batch

from mipnb.learned_gates import _learned, _silenced, learn_gates


def learned(net, forget, retain, top_k, steps=60):
    pairs = itertools.repeat((forget, retain))
    return _learned(net, net.ffns, "text", pairs, top_k, steps, seed=1)


def test_the_planted_neuron_is_silenced_first_and_the_retain_sets_last():
    order = learned(planted_net(), *planted_asked().batches, top_k=4)[0].argsort(descending=True).tolist()
    assert order[0] == FORGET
    assert order[-1] == RETAIN


def test_neurons_that_stand_in_for_each_other_are_found_as_a_set():
    """Either of the two silenced alone changes no answer: only the pair does."""

    def head(outs):
        either = torch.maximum(outs[0][:, 0, FORGET], outs[0][:, 0, FORGET + 1])
        return 0.05 + 0.9 * (either + outs[0][:, 0, RETAIN])

    net = HandMade(NEURONS, 1, head)
    activation = torch.zeros(4, 2, NEURONS)
    forget, retain = activation.clone(), activation.clone()
    forget[:, :, FORGET : FORGET + 2] = 1
    retain[:, :, RETAIN] = 1
    chosen = learned(net, hand_batch(forget.tolist()), hand_batch(retain.tolist()), 2)[0].topk(2).indices
    assert set(chosen.tolist()) == {FORGET, FORGET + 1}


def test_as_many_as_asked_are_silent_in_every_layer_and_the_gradient_reaches_all():
    weights = torch.randn(3, 10, requires_grad=True)
    silent = _silenced(weights, 4)
    assert silent.sum(1).tolist() == pytest.approx([4] * 3)
    assert set(silent.detach().round(decimals=5).flatten().tolist()) == {0.0, 1.0}
    silent.sum().backward()
    assert (weights.grad > 0).all()


def test_the_model_is_left_as_it_was():
    net = planted_net().train()
    before = net.outs[0].weight.clone()
    learned(net, *planted_asked().batches, top_k=1, steps=3)
    assert torch.equal(net.outs[0].weight, before)
    assert net.training
    assert net.outs[0].weight.requires_grad
    assert net.outs[0].weight.grad is None
    assert not net.outs[0]._forward_pre_hooks


@pytest.mark.parametrize("top_k", [0, NEURONS])
def test_there_has_to_be_a_choice(top_k):
    with pytest.raises(ValueError, match=f"expected 1 to {NEURONS - 1} of the {NEURONS} neurons"):
        learned(planted_net(), *planted_asked().batches, top_k)


def test_both_sets_are_needed():
    with pytest.raises(ValueError, match="the retain set has no questions"):
        learn_gates(None, None, ["a question"], [], "text", 1)
