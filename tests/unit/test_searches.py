"""Greedy, exact and one_pass: a brute-force Algorithm 1, and where the three agree."""

import pytest
import torch
from torch import Tensor
from toys import ACTIVATION, SUMS, Chain, HandMade, chain_batch, hand_batch, product_head, toy_scores

from mipnb import searches
from mipnb.scores import concatenate

# ---- searches


def brute_force(model: Chain, hidden: Tensor, score: str, power: int, top_k: int, n_steps: int) -> list[list]:
    """Algorithm 1 for one sample: each candidate alone, by passes of its own, with right Riemann sums."""
    layers, neurons, path, table = len(model.outs), model.ffns[0].n_neurons, [], []

    def run(chosen: list[tuple[int, int]], alpha: float):
        state, kept = hidden[None], []
        for layer in range(layers):
            activation = torch.tanh(state @ model.ins[layer].weight.T + model.ins[layer].bias)
            scale = torch.ones(neurons)
            for other, neuron in chosen:
                if other == layer:
                    scale[neuron] = alpha
            scaled = activation * scale
            scaled = scaled if scaled.requires_grad else scaled.requires_grad_()
            kept.append((activation, scaled))
            change = scaled @ model.outs[layer].weight.T
            state = state + change + change.mean(1, keepdim=True)
        value = (state.mean(1) @ model.read).sigmoid().squeeze()
        gradients = torch.autograd.grad(value if power == 1 else value.log(), [scaled for _, scaled in kept])
        return [activation[0] for activation, _ in kept], [gradient[0] for gradient in gradients]

    for layer in range(layers):
        row = []
        for candidate in range(neurons):
            chosen = [*path, (layer, candidate)]
            steps = [run(chosen, k / n_steps) for k in range(1, n_steps + 1)]
            original = steps[-1][0]  # at alpha = 1
            if score == "joint":
                activation = sum(original[a][:, n] for a, n in chosen)
                gradient = sum(grads[a][:, n] ** power for _, grads in steps for a, n in chosen) / n_steps
                row.append((activation * gradient).sum().item())
            else:
                own = [(acts[layer] * grads[layer])[:, candidate].sum() ** power for acts, grads in steps]
                row.append((sum(own) / n_steps).item())
        table.append(row)
        best = sorted(range(neurons), key=lambda neuron: -row[neuron])[:top_k]
        path += [(layer, neuron) for neuron in best]
    return table


@pytest.mark.parametrize("score", ["joint", "complete"])
@pytest.mark.parametrize("kind", ["igi", "ifi"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_exact_is_algorithm_1_with_each_candidate_alone(score, kind, top_k):
    model, batch = Chain(), chain_batch()
    values = toy_scores(model, batch, kind=kind, score=score, search="exact", top_k=top_k, n_steps=3).values
    for sample, hidden in enumerate(batch["hidden"]):
        expected = brute_force(model, hidden, score, 1 if kind == "igi" else 2, top_k, 3)
        assert torch.allclose(values[sample], torch.tensor(expected), rtol=1e-4, atol=1e-6)


def one_factor_a_layer(outs: list[Tensor]) -> Tensor:
    """Products across layers, sums within one: a candidate's gradient ignores its own layer's gates."""
    return (0.5 + (outs[0] @ torch.tensor([0.3, 0.2])).sum(1)) * (
        0.5 + (outs[1] @ torch.tensor([0.1, 0.4])).sum(1)
    )


def neurons_meet(outs: list[Tensor]) -> Tensor:
    """A product within layer 0."""
    return 0.1 + outs[0].sum(1).prod(-1) + 0.1 * outs[1].sum((1, 2))


def test_greedy_is_exact_where_neurons_of_a_layer_do_not_interact():
    model, batch = HandMade(2, 2, one_factor_a_layer), hand_batch(ACTIVATION, ACTIVATION[::-1])
    found = [toy_scores(model, batch, search=search, rule="right").values for search in ("greedy", "exact")]
    assert torch.allclose(*found, atol=1e-6)


def test_joint_scores_are_exact_only_where_the_path_does_not_feel_the_layer():
    model, batch = HandMade(2, 2, one_factor_a_layer), hand_batch(ACTIVATION, ACTIVATION[::-1])
    greedy, exact = (
        toy_scores(model, batch, score="joint", search=search).values for search in ("greedy", "exact")
    )
    assert torch.allclose(greedy[:, 0], exact[:, 0], atol=1e-6)
    # the path's own gradient is taken with the whole layer scaled in one, with one candidate in the other
    assert not torch.allclose(greedy[:, 1], exact[:, 1], atol=1e-3)


def test_greedy_differs_from_exact_where_they_do():
    model, batch = HandMade(2, 2, neurons_meet), hand_batch(ACTIVATION, ACTIVATION[::-1])
    found = [
        toy_scores(model, batch, search=search, rule="gauss").values[:, 0] for search in ("greedy", "exact")
    ]
    product = SUMS.prod(-1, keepdim=True).expand(-1, 2)
    assert torch.allclose(found[0], product / 2, atol=1e-6)  # both scaled: half of the product each
    assert torch.allclose(found[1], product, atol=1e-6)  # alone: all of it


@pytest.mark.parametrize("rule", ["right", "gauss"])
@pytest.mark.parametrize("score", ["joint", "complete"])
@pytest.mark.parametrize("kind", ["igi", "ifi"])
def test_a_shortlist_of_all_neurons_is_exact(kind, score, rule, monkeypatch):
    model, batch = Chain(), chain_batch()
    own = {"kind": kind, "score": score, "rule": rule, "n_steps": 3, "top_k": 1}
    exact = toy_scores(model, batch, search="exact", **own).values
    assert not torch.allclose(toy_scores(model, batch, search="tangent", **own).values, exact, rtol=1e-2)
    monkeypatch.setattr(searches, "SHORTLIST", 5)
    assert torch.allclose(
        toy_scores(model, batch, search="shortlist", **own).values, exact, rtol=1e-4, atol=1e-7
    )


def test_a_shortlist_scores_some_alone_and_leaves_the_others_their_tangents(monkeypatch):
    model, batch = Chain(layers=1), chain_batch()
    found = {
        search: toy_scores(model, batch, search=search, top_k=1, n_steps=3).values[:, 0]
        for search in ("exact", "tangent", "greedy")
    }
    monkeypatch.setattr(searches, "SHORTLIST", 3)
    mixed = toy_scores(model, batch, search="shortlist", top_k=1, n_steps=3).values[:, 0]
    best = searches._in_turns(found["tangent"], found["greedy"], 3)
    listed = torch.zeros_like(mixed, dtype=torch.bool).scatter(1, best, True)
    assert torch.allclose(mixed, torch.where(listed, found["exact"], found["tangent"]), rtol=1e-4, atol=1e-7)


def test_turns_go_on_to_the_next_best_where_both_scores_name_one():
    first, second = torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[9.0, 0.0, 1.0, 8.0]])
    assert searches._in_turns(first, second, 3)[0].tolist() == [0, 1, 3]
    assert sorted(searches._in_turns(first, second, 4)[0].tolist()) == [0, 1, 2, 3]


def one_saturates(outs: list[Tensor]) -> Tensor:
    """The first of three neurons does most, but only below half of its activation."""
    first, second, third = outs[0].sum(1).unbind(-1)
    return 0.1 + 0.5 * (2 * first).clamp(max=1) + 0.05 * second + 0.04 * third


def test_a_shortlist_finds_the_neuron_whose_slope_is_gone(monkeypatch):
    model, batch = HandMade(3, 1, one_saturates), hand_batch([[[0.5] * 3, [0.5] * 3]])
    monkeypatch.setattr(searches, "SHORTLIST", 2)
    found = {
        search: toy_scores(model, batch, search=search, top_k=1).values[0, 0]
        for search in ("tangent", "exact", "shortlist")
    }
    assert found["tangent"].argsort(descending=True).tolist() == [1, 2, 0]
    assert found["shortlist"].argmax() == found["exact"].argmax() == 0
    assert torch.allclose(found["shortlist"], found["exact"], atol=1e-6)


def test_tangents_are_exact_where_a_candidate_acts_in_proportion():
    model, batch = HandMade(2, 2, one_factor_a_layer), hand_batch(ACTIVATION, ACTIVATION[::-1])
    for score in ("complete", "joint"):
        found = [
            toy_scores(model, batch, search=search, score=score).values for search in ("tangent", "exact")
        ]
        assert torch.allclose(found[0][:, 0], found[1][:, 0], atol=1e-6)
    found = [toy_scores(model, batch, search=search).values for search in ("tangent", "exact")]
    assert torch.allclose(*found, atol=1e-6)


def test_tangents_in_the_first_layer_are_gradients_of_the_unscaled_model():
    model, batch = Chain(), chain_batch()
    tangent, gradient, greedy = (
        toy_scores(model, batch, search=search, rule="gauss").values
        for search in ("tangent", "gradient", "greedy")
    )
    assert torch.allclose(tangent[:, 0], gradient[:, 0], atol=1e-7)
    assert not torch.allclose(tangent[:, 1], gradient[:, 1], rtol=1e-3)  # a path is scaled below
    assert not torch.allclose(tangent[:, 0], greedy[:, 0], rtol=1e-3)


def test_the_path_of_the_layers_below_is_each_samples_own():
    batch = hand_batch([[[0.6, 0.1]] * 2, [[0.1, 0.6]] * 2], [[[0.1, 0.2]] * 2] * 2)
    model = HandMade(2, 2, product_head)
    values = toy_scores(model, batch, score="joint", rule="gauss").values
    assert torch.allclose(values[0, 1], values[1, 1])  # mirrored samples, mirrored paths
    alone = [
        toy_scores(
            model, {key: tensor[row : row + 1] for key, tensor in batch.items()}, score="joint", rule="gauss"
        )
        for row in range(2)
    ]
    assert torch.allclose(values, concatenate(alone).values, atol=1e-6)


def test_one_pass_needs_no_path_for_complete_scores():
    model, batch = Chain(), chain_batch()
    found = [toy_scores(model, batch, search="one_pass", top_k=top_k).values for top_k in (1, 4)]
    assert torch.equal(*found)
    assert not torch.equal(
        *(toy_scores(model, batch, search="greedy", top_k=top_k).values[:, 1] for top_k in (1, 4))
    )


# ---- batching


@pytest.mark.parametrize("search", ["greedy", "one_pass", "exact", "tangent", "shortlist"])
@pytest.mark.parametrize("score", ["joint", "complete"])
def test_scores_do_not_depend_on_batch_or_chunks(search, score):
    model, batch = Chain(), chain_batch(samples=5)
    choices = {"search": search, "score": score, "rule": "right", "top_k": 2}
    whole = toy_scores(model, batch, max_rows=1000, **choices)
    for max_rows in (1, 2, 3, 7, 20):
        part = toy_scores(model, batch, max_rows=max_rows, **choices)
        assert torch.allclose(part.values, whole.values, atol=1e-5)
        assert part.gap is None or torch.allclose(part.gap, whole.gap, atol=1e-4)
        assert torch.allclose(part.f_full, whole.f_full)


@pytest.mark.parametrize("search", ["greedy", "one_pass", "exact", "tangent", "shortlist"])
@pytest.mark.parametrize("max_rows", [1, 4, 7, 30])
def test_no_pass_holds_more_than_max_rows(search, max_rows):
    model, batch, rows = Chain(), chain_batch(samples=5), []
    hook = model.outs[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    toy_scores(model, batch, search=search, rule="right", max_rows=max_rows)
    hook.remove()
    assert max(rows) <= max_rows
    assert max(rows) >= min(max_rows, 5)
