"""Baselines: every loss against a value worked out by hand, and what may change in the model, on a tiny one."""

import math
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from tiny_qwen import tiny_batch, tiny_model
from torch import nn

from mipnb.answers import answer_value
from mipnb.attribution import attribute
from mipnb.baselines import (
    METHODS,
    Settings,
    baseline,
    default_settings,
    neurons,
    refusing,
    saliency,
    sides,
    terms,
)
from mipnb.baselines.training import changed
from mipnb.batches import IGNORED
from mipnb.benchmarks import Question
from mipnb.edits import Edit, same_bits
from mipnb.hooks import zeroed
from mipnb.models import ffns, stored
from mipnb.patches import patches_as_products
from mipnb.pools import pools
from mipnb.results.unlearners import TrainingSets, unlearn

FAST = {"n_steps": 2, "learning_rate": 1e-2}
TRAINED = [name for name, method in METHODS.items() if method.forget]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def sets():
    forget = [tiny_batch(seed, pictured=seed > 1, size=2) for seed in range(4)]
    return forget, [tiny_batch(seed, pictured=seed > 12, size=3) for seed in range(10, 15)]


def chosen(method: str, **settings) -> Settings:
    return default_settings(method, **FAST | {"layer_index": 1, "integration_steps": 2} | settings)


# Losses


def by_hand(model, batch, row: int) -> list[float]:
    """Log-probabilities of one answer's tokens, from the whole logits."""
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    logprobs = model(**inputs).logits.float().log_softmax(-1)
    labels = batch["labels"][row]
    return [logprobs[row, at - 1, labels[at]].item() for at in (labels != IGNORED).nonzero()[:, 0].tolist()]


def test_log_likelihoods_are_sums_and_means_over_answer_tokens(model, sets):
    batch = sets[0][3]
    expected = [by_hand(model, batch, row) for row in range(2)]
    assert terms.summed_nll(model, batch).tolist() == pytest.approx(
        [-sum(each) for each in expected], rel=1e-4
    )
    means = [-sum(each) / len(each) for each in expected]
    assert terms.mean_nll(model, batch).tolist() == pytest.approx(means, rel=1e-4)
    seen = terms.ASCENT.sees(model, batch, Settings())
    assert terms.ASCENT.loss(seen, batch, None, Settings()).tolist() == pytest.approx(
        [-m for m in means], rel=1e-4
    )
    assert terms.DESCENT.loss(seen, batch, None, Settings()).tolist() == pytest.approx(means, rel=1e-4)


def test_npo_by_hand():
    nll = torch.tensor([3.0, 5.0], requires_grad=True)
    loss = terms.npo_loss(nll, torch.tensor([3.0, 1.0]), beta=0.5)
    expected = [4 * math.log(2), -4 * math.log(1 / (1 + math.exp(-2)))]
    assert loss.tolist() == pytest.approx(expected)
    loss.sum().backward()
    assert nll.grad[0] == pytest.approx(-1.0), "at the vanilla model NPO pushes as hard as gradient ascent"
    assert nll.grad[1] == pytest.approx(-2 / (1 + math.exp(2)))


def test_kl_by_hand_and_none_from_the_vanilla_model(model, sets):
    reference = torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]).log()
    found = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log()
    first, second = 0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    both, one = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    assert terms.kl_loss(found, reference, both).tolist() == pytest.approx([(first + second) / 2])
    assert terms.kl_loss(found, reference, one).tolist() == pytest.approx([first])
    vanilla = terms.KL.reference(model, sets[1][4], Settings())
    seen = terms.KL.sees(model, sets[1][4], Settings())
    assert terms.KL.loss(seen, sets[1][4], vanilla, Settings()).abs().max() < 1e-6


def test_states_by_hand_and_rmus_target(model, sets):
    state, target = torch.tensor([[[1.0, 2.0], [0.0, 4.0]]]), torch.tensor([[[0.0, 2.0], [0.0, 0.0]]])
    assert terms.state_loss(state, target, torch.tensor([[True, True]])).tolist() == [(0.5 + 8) / 2]
    assert terms.state_loss(state, target, torch.tensor([[True, False]])).tolist() == [0.5]
    direction = terms.rmu_direction(32)
    assert direction.norm().item() == pytest.approx(1)
    assert direction.min() >= 0
    batch, settings = sets[0][0], chosen("rmu_adaptive", steering=3.0)
    norms = terms._state(model, batch, settings).norm(dim=-1)[batch["attention_mask"].bool()]
    assert terms.ADAPTIVE.reference(model, batch, settings).tolist() == pytest.approx(
        [3 * norms.mean().item()] * 2
    )
    assert terms.STEER.reference(model, batch, chosen("rmu", steering=7.0)).tolist() == [7, 7]
    held = terms.HOLD.reference(model, batch, settings)
    assert terms.HOLD.loss(terms.HOLD.sees(model, batch, settings), batch, held, settings).tolist() == [0, 0]


# What changes


@pytest.mark.parametrize(
    ("method", "weights"),
    [
        *((method, "full") for method in TRAINED),
        *((method, "lora") for method in ("ga_diff", "kl_min", "npo", "idk")),
    ],
)
def test_the_model_is_left_vanilla_and_the_edit_is_the_change(model, sets, method, weights):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = chosen(method, weights=weights)
    found, history = baseline(method, model, *sets, settings, seed=1)
    assert all(same_bits(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {type(module).__name__ for module in model.modules()} & {"LoraModel", "Linear"} == {"Linear"}
    assert history.step.tolist() == [0, 1]
    total = history.loss_forget + settings.retain_weight * history.loss_retain
    assert history.loss.tolist() == pytest.approx(total.tolist())
    with found.applied(model):
        moved = {name for name, tensor in model.state_dict().items() if not same_bits(tensor, before[name])}
        assert moved
    assert all(same_bits(tensor, before[name]) for name, tensor in model.state_dict().items())
    again, _ = baseline(method, model, *sets, settings, seed=1)
    assert all(same_bits(a.new, b.new) for a, b in zip(found.slices, again.slices, strict=True))


@pytest.mark.parametrize("method", ["ga_diff", "kl_min", "npo"])
def test_the_forget_answers_become_less_likely(model, sets, method):
    found, _ = baseline(method, model, *sets, chosen(method, n_steps=8, learning_rate=3e-3))

    def likelihood():
        return -sum(terms.mean_nll(model, batch).mean().item() for batch in sets[0])

    before = likelihood()
    with found.applied(model):
        assert likelihood() < before - 0.5


def test_rmu_trains_three_down_projections_and_nothing_else(model, sets):
    found, _ = baseline("rmu", model, *sets, chosen("rmu", layer_index=2))
    names = {f"{network.output_name}.weight" for network in ffns(model, "text")}
    assert {part.name for part in found.slices} == names
    found, _ = baseline("rmu", model, *sets, chosen("rmu", layer_index=0))
    assert {part.name for part in found.slices} == {f"{ffns(model, 'text')[0].output_name}.weight"}
    with pytest.raises(ValueError, match="layer_index 3: the model's decoder layers are 0 to 2"):
        baseline("rmu", model, *sets, chosen("rmu", layer_index=3))


def test_vanilla_references_are_made_where_the_model_is(model, sets, monkeypatch):
    forget, _ = sets
    moved, asked = [], []

    def elsewhere(batch, device):
        moved.append(dict(batch))
        return moved[-1]

    def reference(model, batch, settings):
        asked.append(batch)
        return torch.zeros(len(batch["labels"]))

    monkeypatch.setattr(sides, "to_device", elsewhere)
    side = sides.Side(replace(terms.NPO, reference=reference), pools(forget, 1, 0))
    side.remember(model, chosen("npo"), {})
    assert len(asked) == len(forget)
    assert all(any(batch is one for one in moved) for batch in asked), "batches wait in CPU memory"


@pytest.mark.parametrize(
    ("method", "other"), [("npo", {}), ("rmu", {"layer_index": 2}), ("mmunlearner", {"saliency": 2.0})]
)
def test_what_is_known_of_the_vanilla_model_is_found_out_once(model, sets, monkeypatch, method, other):
    asked, known = [], {}

    def counted(name, holder, function):
        monkeypatch.setattr(holder, name, lambda *args: asked.append(name) or function(*args))

    counted("hidden_state", terms, terms.hidden_state)
    counted("log_likelihood", terms, terms.log_likelihood)
    counted("squared_gradients", saliency, saliency.squared_gradients)

    def made(**changed) -> tuple[Edit, int]:
        asked.clear()
        found, _ = baseline(method, model, *sets, chosen(method, **changed), 7, known)
        return found, len(asked)

    expected, _ = baseline(method, model, *sets, chosen(method), 7)
    (first, often), (again, less) = made(), made()
    assert less < often
    for found in (first, again):
        pairs = zip(found.slices, expected.slices, strict=True)
        assert all(same_bits(part.new, one.new) for part, one in pairs)
    if other:
        assert made(**other)[1] == often, "another setting needs to know something else"


def test_what_one_training_found_out_is_there_for_the_next_on_the_same_sets(model, sets, monkeypatch):
    whole = TrainingSets(*sets, refusals=[])
    first, _ = unlearn("mmunlearner", model, whole, chosen("mmunlearner"), 7)
    monkeypatch.setattr(saliency, "saliency_masks", None)
    again, _ = unlearn("mmunlearner", model, whole, chosen("mmunlearner"), 7)
    assert [part.name for part in again.slices] == [part.name for part in first.slices]
    with pytest.raises(TypeError):
        unlearn("mmunlearner", model, TrainingSets(*sets, refusals=[]), chosen("mmunlearner"), 7)


def test_mmunlearner_leaves_what_its_mask_forbids_bit_for_bit(model, sets):
    names = [name for name, _ in model.named_parameters()]
    masks = saliency.saliency_masks(model, *sets, names, 1.0)
    share = sum(mask.sum().item() for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert 0.05 < share < 0.95
    found, _ = baseline("mmunlearner", model, *sets, chosen("mmunlearner"))
    for part in found.slices:
        moved = part.new != part.old
        assert not (moved & ~masks[part.name][part.neurons]).any()
    assert not any(mask.any() for mask in saliency.saliency_masks(model, *sets, names, 1e30).values())


def test_squared_gradients_are_means_over_batches_of_the_sets_loss(model, sets):
    name = f"{ffns(model, 'text')[0].output_name}.weight"
    weight, expected = stored(model, name), 0
    for batch in sets[0]:
        weight.requires_grad_(True)
        (slope,) = torch.autograd.grad(terms.mean_nll(model, batch).mean(), weight)
        weight.requires_grad_(False)
        expected = expected + slope.square() / len(sets[0])
    found = saliency.squared_gradients(model, sets[0], [name])[name]
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99
    assert found.sum() == pytest.approx(expected.sum().item(), rel=0.1)


def test_an_edit_of_whole_weights_is_undone_after_an_error(model):
    name = f"{ffns(model, 'text')[0].output_name}.weight"
    before = stored(model, name).clone()

    def fail():
        with changed(model, [name], {}):
            stored(model, name).data[1] += 1
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert same_bits(stored(model, name), before)
    with changed(model, [name], {}) as made:
        stored(model, name).data[1] += 1
    assert made[0].slices[0].neurons.tolist() == [1]


# Neurons


def test_manus_importance_by_hand():
    def stats(absolute, often, variance, squares):
        return torch.tensor([absolute, often, variance, squares], dtype=torch.float64).view(1, 4, 1)

    found = neurons.importance(stats(3, 8, 4, 50), stats(1, 2, 5, 14))
    assert found.item() == pytest.approx(2 / 4 + 6 / 10 + 3 + math.sqrt(36 / 64))


def test_moments_say_what_they_miss(model):
    with pytest.raises(ValueError, match="text branch: found no batches, expected at least one"):
        neurons.moments(model, [], "text", 0.05)
    with pytest.raises(
        ValueError, match=r"(?s)none of its .* networks was run .*'input_ids'.*expected pictures"
    ):
        neurons.moments(model, [tiny_batch(1, pictured=False)], "vision", 0.05)


def test_moments_are_those_of_real_tokens(model, sets):
    batch = sets[1][0]
    found = neurons.moments(model, [batch, batch], "text", 0.05)
    seen = {}
    network = ffns(model, "text")[1]
    handle = network.output.register_forward_pre_hook(lambda module, args: seen.update(z=args[0]))
    model(**{key: tensor for key, tensor in batch.items() if key != "labels"})
    handle.remove()
    z = seen["z"][batch["attention_mask"].bool()].double()
    assert len(z) < seen["z"].shape[0] * seen["z"].shape[1], "the test is empty without padding"
    torch.testing.assert_close(found[1, 0], z.abs().mean(0))
    torch.testing.assert_close(found[1, 1], 2.0 * (z.abs() > 0.05).sum(0).double())
    torch.testing.assert_close(found[1, 2], z.var(0, correction=0))
    torch.testing.assert_close(found[1, 3], 2 * z.square().sum(0))


def test_manu_silences_the_highest_scored_share(model, sets):
    paths = neurons.manu_paths(model, *sets, chosen("manu", share=0.1))
    for path in paths:
        scores = neurons.manu_scores(model, *sets, path.branch, 0.1)
        assert sum(path.sizes) == round(0.1 * scores.numel())
        inside = torch.zeros_like(scores, dtype=torch.bool)
        for layer, found in enumerate(path.layers):
            inside[layer, list(found)] = True
        assert scores[inside].min() >= scores[~inside].max()
    found, history = baseline("manu", model, *sets, chosen("manu", share=0.1))
    assert len(history) == 0
    assert found.metadata["method"] == "manu"


def test_depn_keeps_what_stands_out_in_enough_samples(model, sets, monkeypatch):
    scores = torch.tensor([[[10.0, 2, 0, 0.5]], [[1.0, 0.3, 0, 2.0]]])  # two samples, one layer

    monkeypatch.setattr(neurons, "_attributions", lambda *args: scores)
    layers = {
        share: neurons.depn_paths(model, sets[0], chosen("depn", agreement=share))[0].layers
        for share in (0.5, 1)
    }
    assert layers[0.5] == ((0, 1, 3),)
    assert layers[1] == ((0, 1),)
    nowhere = torch.tensor([[[10.0, 2, 0, 0.5]], [[0.1, 0.1, 0, 2.0]], [[0.1, 5.0, 0, 0]]])
    monkeypatch.setattr(neurons, "_attributions", lambda *args: nowhere)
    found = neurons.depn_paths(model, sets[0], chosen("depn", agreement=1))[0].layers
    assert found == ((1,),), "none in all three samples: the one that stands out in most of them"


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_depn_silences_nobody_where_no_attribution_is_above_0(sets, model, monkeypatch, value):
    monkeypatch.setattr(neurons, "_attributions", lambda *args: torch.full((2, 1, 4), value))
    with pytest.raises(ValueError, match="no neuron of any branch has an attribution above 0"):
        neurons.depn_paths(model, sets[0], chosen("depn"))


def test_depn_looks_at_batches_of_all_lengths(sets, model, monkeypatch):
    seen = []
    lengths = [{"input_ids": torch.zeros(8, length)} for length in range(1, 21)]
    pictured = [batch | {"pixel_values": torch.zeros(1)} for batch in lengths]

    def scores(model, batch, branch, *rest):
        seen.append((branch, "pixel_values" in batch, batch["input_ids"].shape[1]))
        return torch.ones(8, 1, 4)

    monkeypatch.setattr(neurons, "_attributions", scores)
    neurons.depn_paths(model, lengths + pictured, chosen("depn", attributed=32))
    four = [1, 6, 11, 16]
    wanted = [("text", kind, length) for kind in (False, True) for length in four]
    assert seen == wanted + [("vision", True, length) for length in four]


def test_depn_integrates_each_layer_alone_from_silenced_to_as_it_is(model, sets):
    batch = sets[0][0]
    scores = neurons._attributions(model, batch, "text", chosen("depn", integration_steps=128))
    whole = answer_value(model, batch, "probability")
    for layer, network in enumerate(ffns(model, "text")):
        with zeroed([network]):
            change = whole - answer_value(model, batch, "probability")
        torch.testing.assert_close(scores[:, layer].sum(-1), change, rtol=0.1, atol=2e-3)
    paths = neurons.depn_paths(model, [batch], chosen("depn"))
    assert [path.branch for path in paths] == ["text"], "no picture, no vision path"


@pytest.mark.parametrize(("branch", "which"), [("text", 0), ("text", 3), ("vision", 3)])
def test_depns_layers_share_what_lies_below_and_score_as_each_alone(model, sets, branch, which):
    batch, settings = sets[0][which], chosen("depn", integration_steps=5)
    found = neurons._attributions(model, batch, branch, settings)
    choices = {"search": "greedy", "kind": "igi", "rule": "right", "n_steps": 5, "top_k": 1}
    choices["completeness"] = False
    for layer, network in enumerate(ffns(model, branch)):
        alone = attribute(model, batch, branch, ffns=[network], **choices).values[:, 0]
        assert alone.abs().max() > 0
        torch.testing.assert_close(found[:, layer], alone, rtol=1e-4, atol=1e-7)


# Patches


def test_patches_are_embedded_by_a_product_with_the_convolutions_values_and_gradients(model, sets):
    batch, conv = sets[0][3], model.model.visual.patch_embed.proj
    weight = conv.weight.requires_grad_(True)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        loss = terms.mean_nll(model, batch).mean()
        return loss.detach(), torch.autograd.grad(loss, weight)[0]

    try:
        expected, calls = run(), []
        with (
            patch.object(conv, "_conv_forward", lambda *args: calls.append(args)),
            patches_as_products(model),
        ):
            found = run()
        assert not calls, "the convolution itself was run"
        torch.testing.assert_close(found[0], expected[0])
        largest = expected[1].abs().max()
        assert (found[1] - expected[1]).abs().max() < 1e-4 * largest, (
            f"gradients of up to {largest:.2g} differ"
        )
        assert "forward" not in vars(conv), "left as it was found"
    finally:
        weight.requires_grad_(False)


@pytest.mark.parametrize("method", ["ga_diff", "mmunlearner"])
def test_baselines_are_trained_without_the_convolution(model, sets, method):
    conv, calls = model.model.visual.patch_embed.proj, []
    with patch.object(conv, "_conv_forward", lambda *args: calls.append(args)):
        baseline(method, model, *sets, chosen(method))
    assert not calls


def test_a_convolution_over_several_windows_stays_one():
    convs = [nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(3, 4, 4, padding=1), nn.Conv2d(4, 4, 4, groups=2)]
    for conv in convs:
        inputs = torch.randn(2, conv.in_channels, 4, 4)
        with patches_as_products(nn.Sequential(conv)):
            found = conv(inputs)
        torch.testing.assert_close(found, conv(inputs))


# Input


def test_refusals_keep_everything_but_the_answer():
    questions = [Question(f"p{i}", "GEN", f"who {i}", "Ann") for i in range(30)]
    found = refusing(questions, 1)
    assert [replace(q, answer="Ann") for q in found] == questions
    assert len({q.answer for q in found}) > 4
    assert found == refusing(questions, 1) != refusing(questions, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weights": "half"}, "weights is 'half', expected one of full, lora"),
        ({"share": 0.0}, "share is 0.0"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Settings(**settings)


def test_wrong_input_is_refused_and_the_model_stays_vanilla(model, sets):
    with pytest.raises(ValueError, match="method 'gA' is not one of ga_diff"):
        baseline("gA", model, *sets)
    for method in ("ga_diff", "manu"):
        with pytest.raises(ValueError, match="batches of both sets; got 4 and 0"):
            baseline(method, model, sets[0], [])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="lower learning_rate"):
        baseline("ga_diff", model, *sets, chosen("ga_diff", learning_rate=1e30, n_steps=9))
    assert all(same_bits(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_edit_is_saved_and_loaded(model, sets, tmp_path):
    found, _ = baseline("rmu", model, *sets, chosen("rmu"))
    loaded = Edit.load(found.save(tmp_path / "rmu.safetensors"))
    assert loaded.metadata["settings"]["steering"] == 20.0
    with loaded.applied(model):
        assert found.is_applied(model)
