"""Pruning, RMisU and edits, on a random Qwen2.5-VL of a few thousand parameters."""

from dataclasses import replace

import pytest
import torch
from tiny_qwen import tiny_batch, tiny_model
from torch import nn
from transformers import AutoModelForImageTextToText

from mipnb.batches import answer_logprob
from mipnb.editing import edit, prune
from mipnb.edits import Edit, WeightSlice, same_bits
from mipnb.losses import passes_of, step_losses
from mipnb.models import FFN, ffns, fingerprint, text_layers
from mipnb.overlay import NeuronWeights, overlay
from mipnb.paths import NeuronPath
from mipnb.pools import Pool, pools
from mipnb.precision import mixed_precision, training_attention
from mipnb.rmisu import EditConfig, optimiser, unanswered
from mipnb.steering import distance, hidden_state, hidden_state_and_logprob, token_mask, token_weights

TEXT_NEURONS, VISION_NEURONS = ((1, 4, 20), (0, 2), (5,)), ((3, 7), (0, 19))
CONFIG = EditConfig(n_steps=4, learning_rate=1e-2)


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def paths(model):
    return _paths(model, TEXT_NEURONS, VISION_NEURONS)


@pytest.fixture
def sets():
    forget = [tiny_batch(seed, pictured) for seed, pictured in ((1, False), (2, True), (3, False))]
    return forget, [tiny_batch(seed, pictured) for seed, pictured in ((4, False), (5, True))]


def _paths(model, text, vision):
    mark = fingerprint(model)
    return [
        NeuronPath("text", text, 24, mark, "tiny", {}),
        NeuronPath("vision", vision, 20, mark, "tiny", {}),
    ]


def _bytes(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _same(one, other):
    return [name for name in one if not same_bits(one[name], other[name])] == []


def _logits(model, pictured=True):
    batch = {key: value for key, value in tiny_batch(9, pictured).items() if key != "labels"}
    return model(**batch).logits


def _retain_losses(model, trained, batches, config=CONFIG):
    """L_r and L_CE of the first batches of a retain set."""
    return step_losses(model, trained, passes_of(model, [], pools(batches, 0, 1), config), config)


# Pruning


def test_pruning_zeroes_only_the_up_rows_and_their_biases(model, paths):
    before = _bytes(model)
    pruned = prune(model, paths)
    assert _same(before, _bytes(model)), "prune must not change the model"
    pruned.apply(model)
    after = _bytes(model)
    changed = {name for name in before if not same_bits(before[name], after[name])}
    expected = {
        f"{ffn.input_names[1]}.weight" for branch in ("text", "vision") for ffn in ffns(model, branch)
    }
    expected |= {f"{ffn.input_names[1]}.bias" for ffn in ffns(model, "vision")}
    assert changed - {"lm_head.weight"} == expected
    for layer, neurons in zip(ffns(model, "text"), TEXT_NEURONS, strict=True):
        rows = after[f"{layer.input_names[1]}.weight"]
        assert set(torch.nonzero(rows.abs().sum(1) == 0).flatten().tolist()) == set(neurons)


def test_pruned_neurons_are_silent_and_can_learn(model, paths):
    prune(model, paths).apply(model)
    layer = ffns(model, "vision")[0]
    layer.inputs[1].weight.requires_grad_(True)
    seen = []
    layer.output.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    _logits(model).sum().backward()
    assert torch.all(seen[0][..., [3, 7]] == 0)
    assert seen[0].abs().sum() > 0
    assert torch.all(layer.inputs[1].weight.grad[[3, 7]].abs().sum(1) > 0)


def test_an_ungated_network_loses_its_output_columns():
    torch.manual_seed(0)
    first, last = nn.Linear(6, 10), nn.Linear(10, 6)
    ffn = FFN("layer", (first,), last, ("layer.fc1",), "layer.fc2", nn.GELU())
    weights = NeuronWeights.copied(ffn, 0, "vision", (2, 9))
    inputs = torch.randn(5, 6)
    own = ffn.activation(first(inputs))[:, [2, 9]]
    torch.testing.assert_close(weights.activation(inputs), own)
    weights.silence()
    assert torch.all(weights.columns == 0)
    assert all(row.abs().min() > 0 for row in weights.rows)
    assert {part.name: part.axis for part in weights.slices()} == {
        "layer.fc2.weight": 1, "layer.fc1.weight": 0, "layer.fc1.bias": 0,
    }  # fmt: skip


# Overlay


@pytest.mark.parametrize("pictured", [False, True])
def test_hook_form_and_weight_form_agree(model, paths, pictured):
    vanilla = _logits(model, pictured)
    trained = overlay(model, paths, silent=False)
    torch.manual_seed(1)
    for part in trained.weights:
        for tensor in part.tensors():
            tensor.add_(0.3 * torch.randn_like(tensor))
    with trained.on():
        by_hook = _logits(model, pictured)
    made = Edit(trained.slices(), fingerprint(model))
    trained.weights[
        0
    ].columns.zero_()  # the edit is a copy: what happens to the overlay later is not its concern
    with made.applied(model):
        by_weight = _logits(model, pictured)
    torch.testing.assert_close(by_hook, by_weight, atol=1e-5, rtol=1e-5)
    assert (by_hook - vanilla).abs().max() > 1e-2
    assert same_bits(_logits(model, pictured), vanilla)


def test_the_overlay_comes_off_after_an_error(model, paths):
    with pytest.raises(RuntimeError, match="inside"), overlay(model, paths, silent=True).on():
        raise RuntimeError("inside")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_paths_that_do_not_fit_are_refused(model, paths):
    text, vision = paths
    with pytest.raises(ValueError, match="at most one a branch"):
        prune(model, [text, text])
    with pytest.raises(ValueError, match="no neurons"):
        prune(model, [replace(vision, layers=((), ()))])
    with pytest.raises(ValueError, match="another"):
        prune(tiny_model(seed=5), paths)


# Steering


def test_distances_by_hand():
    state, target = torch.tensor([[[3.0, 4.0], [1.0, 1.0], [9.0, 9.0]]]), torch.zeros(1, 3, 2)
    frozen = torch.tensor([[[1.0, 2.0], [0.0, 1.0], [1.0, 1.0]]])
    mask = torch.tensor([[True, True, False]])
    assert distance(state, target, frozen, mask, "relative").item() == pytest.approx((25 / 5 + 2 / 1) / 2)
    assert distance(state, target, frozen, mask, "dimension").item() == pytest.approx((25 / 2 + 2 / 2) / 2)


def test_token_masks_split_the_real_tokens():
    batch = tiny_batch(1, pictured=False, size=2, tokens=6)
    answer = [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]]  # the last prompt token predicts the first of three
    assert token_mask(batch, "answer").long().tolist() == answer
    both = token_mask(batch, "answer").long() + token_mask(batch, "prompt").long()
    assert both.tolist() == batch["attention_mask"].tolist() == token_mask(batch, "all").long().tolist()
    with pytest.raises(ValueError, match="'last' is not one of"):
        token_mask(batch, "last")


def test_at_the_onset_an_answers_beginning_counts_as_much_as_the_whole_of_it():
    batch = tiny_batch(
        1, pictured=False, size=2, tokens=6
    )  # its tokens: 2 to 5 of the first sample, 1 to 4 of the second
    weights = token_weights(batch, "onset")
    each, begins = 1 / 8, 1 / 2
    wanted = [
        [0, 0, each + begins, each, each, each],
        [0, each + begins, each, each, each, 0],
    ]
    torch.testing.assert_close(weights, torch.tensor(wanted))
    assert token_weights(batch, "prompt").tolist() == token_mask(batch, "prompt").float().tolist()
    with pytest.raises(ValueError, match="forget_tokens 'last'"):
        token_weights(batch, "last")


def test_a_distance_weighs_its_tokens():
    state, target = torch.tensor([[[3.0, 4.0], [1.0, 1.0], [9.0, 9.0]]]), torch.zeros(1, 3, 2)
    frozen = torch.tensor([[[1.0, 2.0], [0.0, 1.0], [1.0, 1.0]]])
    weights = torch.tensor([[3.0, 1.0, 0.0]])
    assert distance(state, target, frozen, weights).item() == pytest.approx((3 * 25 / 5 + 2 / 1) / 4)


@pytest.mark.parametrize("pictured", [False, True])
def test_stopping_early_gives_the_same_state(model, pictured):
    batch, layer = tiny_batch(3, pictured), text_layers(model)[1]
    full, logprob = hidden_state_and_logprob(model, batch, layer)
    assert same_bits(full, hidden_state(model, batch, layer))
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    torch.testing.assert_close(logprob, answer_logprob(logits, batch["labels"]))
    assert not layer._forward_hooks


# RMisU


def test_editing_leaves_the_model_vanilla_and_takes_no_weight_gradient(model, paths, sets):
    before = _bytes(model)
    made, history = edit(model, paths, *sets, CONFIG, seed=1)
    assert _same(before, _bytes(model))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert list(history) == ["step", "loss_forget", "loss_retain", "loss_ce", "loss"]
    assert len(history) == 4
    row = history.iloc[0]
    assert row.loss == pytest.approx(row.loss_forget + 3 * row.loss_retain + 3 * row.loss_ce)
    assert made.metadata["config"]["n_steps"] == 4
    assert made.metadata["seed"] == 1


def test_an_edit_changes_the_paths_rows_and_columns_alone(model, paths, sets):
    made, _ = edit(model, paths, *sets, CONFIG)
    before = _bytes(model)
    made.apply(model)
    after = _bytes(model)
    for branch, path in zip(("text", "vision"), (TEXT_NEURONS, VISION_NEURONS), strict=True):
        for ffn, neurons in zip(ffns(model, branch), path, strict=True):
            kept = [i for i in range(ffn.n_neurons) if i not in neurons]
            for name in ffn.input_names:
                for key in {f"{name}.weight", f"{name}.bias"} & set(before):
                    assert same_bits(before[key][kept], after[key][kept])
                    assert torch.all(
                        (before[key] != after[key])[list(neurons)].reshape(len(neurons), -1).any(1)
                    )
                    before[key] = after[key]
            key = f"{ffn.output_name}.weight"
            assert same_bits(before[key][:, kept], after[key][:, kept])
            assert torch.all((before[key] != after[key])[:, list(neurons)].any(0))
            before[key] = after[key]
    assert _same(before, after), "everything else is bit-identical"


def test_training_lowers_the_loss_it_is_given(model, paths, sets):
    wide = _paths(model, (tuple(range(24)),) * 3, VISION_NEURONS)
    config = EditConfig(n_steps=40, learning_rate=1e-2, retain_weight=0, ce_weight=0, schedule="constant")
    _, history = edit(model, wide, *sets, config)
    assert history.loss_forget.iloc[-5:].mean() < 0.8 * history.loss_forget.iloc[:5].mean()
    for weight, loss in (("ce_weight", "loss_ce"), ("retain_weight", "loss_retain")):
        _, history = edit(model, wide, *sets, replace(config, forget_weight=0.0, **{weight: 1.0}))
        assert history[loss].iloc[-5:].mean() < 0.8 * history[loss].iloc[:5].mean()


def test_without_pruning_the_retain_loss_starts_at_zero(model, paths, sets):
    _, history = edit(model, paths, *sets, replace(CONFIG, prune_first=False))
    assert history.loss_retain[0] < 1e-10 < history.loss_retain[1]
    assert history.loss_forget[0] == pytest.approx(2.0, abs=0.5)  # |h - |h| u|^2 / |h|^2, u nearly orthogonal


def test_the_seed_fixes_the_edit(model, paths, sets):
    first, again, other = (edit(model, paths, *sets, CONFIG, seed=seed)[0] for seed in (1, 1, 2))
    news = [torch.cat([part.new.flatten() for part in made.slices]) for made in (first, again, other)]
    assert same_bits(news[0], news[1])
    assert not same_bits(news[0], news[2])


def test_every_input_has_a_direction_of_its_own(model, paths, sets):
    forget, retain = sets[0][:1], sets[1]  # one batch: the order cannot differ

    def losses(seed, **changed):
        config = replace(CONFIG, learning_rate=0.0, prune_first=True, **changed)
        return edit(model, paths, forget, retain, config, seed)[1].loss_forget.tolist()

    assert losses(1) != losses(2)
    assert len(set(losses(1))) == 1, "kept from step to step"
    assert len(set(losses(1, redraw=True))) == CONFIG.n_steps


def test_a_pool_visits_all_batches_in_a_new_order_with_their_own_states(model):
    batches, layer = [tiny_batch(seed, pictured=False) for seed in range(5)], text_layers(model)[1]
    pool = Pool(batches, (1, 0, 0))
    visits = [pool.draw(model, layer, n_steps=15) for _ in range(15)]
    orders = [tuple(index for index, _, _ in visits[start : start + 5]) for start in (0, 5, 10)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len(set(orders)) == 3
    for index, batch, state in visits:
        assert batch is batches[index]
        with mixed_precision():
            assert same_bits(state, hidden_state(model, batch, layer).float())
    pool.frozen.clear()
    pool.draw(model, layer, n_steps=5)
    assert pool.frozen == {}, "nothing is kept that does not come round again"


def test_the_schedule_and_the_clipping_are_heeded(model, paths, sets):
    def news(**changed):
        made, _ = edit(model, paths, *sets, replace(CONFIG, **changed))
        return torch.cat([part.new.flatten() for part in made.slices])

    found = [news(schedule=name) for name in ("constant", "linear", "cosine")]
    assert not same_bits(found[0], found[1])
    assert not same_bits(found[1], found[2])
    with pytest.raises(ValueError, match="change nothing"):
        news(clip_norm=0.0, prune_first=False)


def test_only_the_answer_loss_reaches_neurons_above_the_layer(model, paths, sets):
    name = ffns(model, "text")[2].output_name + ".weight"
    steered = EditConfig(n_steps=2, layer_index=1, ce_weight=0.0, prune_first=False)
    for config, reached in ((steered, False), (replace(steered, ce_weight=1.0), True)):
        assert (name in {part.name for part in edit(model, paths, *sets, config)[0].slices}) is reached
    made, _ = edit(model, paths, *sets, replace(steered, ce_weight=1.0, train_above=False))
    names = {part.name for part in made.slices}
    assert name not in names
    assert ffns(model, "text")[1].output_name + ".weight" in names


def test_one_pass_over_both_modalities_and_padding_is_left_out(model, paths, sets):
    forget, retain = sets
    noisy = [{**batch, "input_ids": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 50)}
             for batch in forget]  # fmt: skip
    one, other = (edit(model, paths, chosen, retain, CONFIG)[1] for chosen in (forget, noisy))
    torch.testing.assert_close(
        torch.tensor(one.to_numpy()), torch.tensor(other.to_numpy()), atol=1e-5, rtol=1e-5
    )


def test_edits_share_vanilla_states_and_are_the_same(model, paths, sets):
    apart = [edit(model, paths, *sets, CONFIG, seed)[0] for seed in (1, 2)]
    states: dict = {}
    shared = [edit(model, paths, *sets, CONFIG, seed, states=states)[0] for seed in (1, 2)]
    assert len(states) == len(sets[0]) + len(sets[1])
    for one, other in zip(apart, shared, strict=True):
        assert all(torch.equal(a.new, b.new) for a, b in zip(one.slices, other.slices, strict=True))


def test_batches_without_labels_are_kept_as_they_were_and_teach_no_answer(model, paths, sets):
    trained = overlay(model, paths, silent=True)
    optimiser(trained, CONFIG)
    labelled = sets[1][:1]
    near = unanswered(labelled)
    both = _retain_losses(model, trained, labelled + near)
    alone = _retain_losses(model, trained, near)
    answered = _retain_losses(model, trained, labelled)
    assert alone["loss_ce"] == 0
    assert answered["loss_ce"] > 0
    assert both["loss_ce"] == pytest.approx(answered["loss_ce"])
    assert (
        alone["loss_retain"] == pytest.approx(answered["loss_retain"]) == pytest.approx(both["loss_retain"])
    )


def test_retain_states_are_held_at_the_chosen_tokens_alone(model, paths, sets):
    trained, batch = overlay(model, paths, silent=True), sets[1][0]
    optimiser(trained, CONFIG)
    with torch.no_grad(), mixed_precision():
        frozen = hidden_state(model, batch, text_layers(model)[CONFIG.layer_index])
        with trained.on():
            state = hidden_state(model, batch, text_layers(model)[CONFIG.layer_index])
    apart = (state - frozen).float().square().sum(-1) / frozen.float().square().sum(-1)  # (batch, tokens)
    for tokens in ("all", "answer", "prompt"):
        config = replace(CONFIG, retain_tokens=tokens)
        expected = apart[token_mask(batch, tokens)].mean().item()
        found = _retain_losses(model, trained, [batch], config)
        assert found["loss_retain"] == pytest.approx(expected, rel=1e-4)
        near = _retain_losses(model, trained, unanswered([batch]), config)
        everywhere = apart[token_mask(batch, "all")].mean().item()  # whatever the others are held at
        assert near["loss_retain"] == pytest.approx(everywhere, rel=1e-4)
    assert apart[token_mask(batch, "answer")].mean() != pytest.approx(apart[token_mask(batch, "all")].mean())


def test_only_a_cpu_is_kept_from_torchs_fused_attention():
    def fused(device: str) -> bool:
        """Whether torch may choose the fused kernel."""
        with training_attention(torch.device(device)):
            return torch.backends.cuda.flash_sdp_enabled()

    assert (fused("cpu"), fused("cuda")) == (False, True)
    assert torch.backends.cuda.flash_sdp_enabled()


def test_bad_input_is_refused(model, paths, sets):
    forget, retain = sets
    with pytest.raises(ValueError, match="0 of retain"):
        edit(model, paths, forget, [], CONFIG)
    with pytest.raises(ValueError, match="decoder layers are 0 to 2"):
        edit(model, paths, forget, retain, EditConfig(layer_index=3))
    with pytest.raises(ValueError, match="retain_tokens is 'onset'"):
        EditConfig(retain_tokens="onset")
    with pytest.raises(ValueError, match="schedule"):
        EditConfig(schedule="step")
    with pytest.raises(ValueError, match="learning_rate"):
        EditConfig(learning_rate=float("nan"))
    speechless = [{**batch, "labels": torch.full_like(batch["labels"], -100)} for batch in retain]
    with pytest.raises(ValueError, match=r"step 0.*loss_ce"):
        edit(model, paths, forget, speechless, CONFIG)
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="requires_grad_"):
        edit(model, paths, forget, retain, CONFIG)


# Edits


def test_removing_restores_every_bit(model, paths, sets):
    made, _ = edit(model, paths, *sets, CONFIG)
    before = _bytes(model)
    with made.applied(model):
        assert made.is_applied(model)
        assert not _same(before, _bytes(model))
    assert _same(before, _bytes(model))
    with pytest.raises(RuntimeError, match="inside"), made.applied(model):
        raise RuntimeError("inside")
    assert _same(before, _bytes(model))
    assert not made.is_applied(model)


def test_an_edit_is_refused_where_it_does_not_belong(model, paths):
    made = prune(model, paths)
    with pytest.raises(ValueError, match="not applied"):
        made.remove(model)
    made.apply(model)
    with pytest.raises(ValueError, match="already applied"):
        made.apply(model)
    made.remove(model)
    other = tiny_model(seed=1)
    before = _bytes(other)
    with pytest.raises(ValueError, match="not the vanilla model"):
        made.apply(other)
    assert _same(before, _bytes(other))
    with pytest.raises(ValueError, match="load the model so"):
        made.apply(model.to(torch.bfloat16))
    with pytest.raises(ValueError, match="no weight"):
        made.apply(nn.Linear(2, 2))


def test_a_model_changed_at_the_edits_rows_is_refused(model, paths, monkeypatch):
    made = prune(model, paths)
    part = made.slices[0]
    part.write(model, part.old + 1)
    with pytest.raises(ValueError, match=f"1 of {len(made.slices)} weights"):
        made.apply(model)
    # a fingerprint is a sample of the values, and may overlook it
    monkeypatch.setattr("mipnb.edits.fingerprint", lambda model: made.fingerprint)
    with pytest.raises(ValueError, match=f"1 of {len(made.slices)} weights"):
        made.apply(model)


def test_a_model_changed_elsewhere_is_refused(model, paths):
    made = prune(model, paths)
    model.get_input_embeddings().weight.mul_(2)
    with pytest.raises(ValueError, match=f"0 of {len(made.slices)} weights"):
        made.apply(model)


def test_saved_and_loaded_edits_are_equal_and_small(model, paths, sets, tmp_path):
    made, _ = edit(model, paths, *sets, CONFIG)
    made.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors")
    assert loaded.metadata == made.metadata
    assert loaded.fingerprint == made.fingerprint
    one, other = ({part.name: part for part in found.slices} for found in (made, loaded))
    assert set(one) == set(other)
    for name in one:
        assert one[name].axis == other[name].axis
        assert same_bits(one[name].neurons, other[name].neurons)
        assert same_bits(one[name].old, other[name].old)
        assert same_bits(one[name].new, other[name].new)
    assert made.n_values < 0.1 * sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected 'mipnb-edit-1'"):
        Edit.load(tmp_path / "model.safetensors")


def test_the_edited_model_saves_as_a_plain_folder(model, paths, sets, tmp_path):
    made, _ = edit(model, paths, *sets, CONFIG)
    with made.applied(model):
        model.save_pretrained(tmp_path)
        expected = _logits(model)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert same_bits(_logits(plain).detach(), expected)


def test_a_bfloat16_model_is_edited_in_its_own_dtype(sets):
    model = tiny_model().to(torch.bfloat16)
    before = _bytes(model)
    made, _ = edit(model, _paths(model, TEXT_NEURONS, VISION_NEURONS), *sets, CONFIG)
    assert {part.new.dtype for part in made.slices} == {torch.bfloat16}
    with made.applied(model):
        pass
    assert _same(before, _bytes(model))


def test_same_bits_tells_zero_from_minus_zero():
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))


def test_a_slice_with_unequal_halves_is_refused():
    with pytest.raises(ValueError, match="same shape and dtype"):
        WeightSlice("weight", 0, torch.tensor([0]), torch.zeros(1, 2), torch.zeros(1, 3))
