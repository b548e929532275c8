"""Every family end to end on a tiny random model: ask, locate, prune, edit, undo, evaluate, save, reload."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import PeftModel
from tiny_families import N_BLOCKS, N_LAYERS, RECIPES, TEXT_WIDTH, VISION_WIDTH, picture, questions, tiny
from torch import nn

from mipnb import attribution
from mipnb.batches import IGNORED, answer_logprob, encode, repeat_batch, take_batch
from mipnb.editing import edit, prune
from mipnb.edits import Edit, same_bits
from mipnb.evaluation import evaluate
from mipnb.families import FAMILIES, image_tokens
from mipnb.hooks import undisturbed, zeroed
from mipnb.in_rounds import locate_in_rounds, scores_in_rounds
from mipnb.learned_gates import learn_path
from mipnb.locating import PAIRS, locate, of_modality
from mipnb.lora import LoraRecipe, tune_lora
from mipnb.models import fingerprint, load_model, load_processor, save_model
from mipnb.networks import ffns
from mipnb.paths import NeuronPath, random_path, select
from mipnb.probe import Probe
from mipnb.rmisu import EditConfig, training_batches
from mipnb.sharing import shared
from mipnb.training import tune
from mipnb.trials import bit_check, save_edited

BLOCKS = {name: N_BLOCKS - (name == "llava") for name in RECIPES}  # LLaVA's features leave before the last


@pytest.fixture(scope="module", params=RECIPES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def made(name):
    return tiny(name)


@pytest.fixture
def model(made):
    return made[0]


@pytest.fixture
def processor(made):
    return made[1]


def logprob(model: nn.Module, batch: dict) -> torch.Tensor:
    with torch.no_grad():
        logits = model(**{key: tensor for key, tensor in batch.items() if key != "labels"}).logits
    return answer_logprob(logits, batch["labels"])


def located(model, processor, branch: str):
    asked = of_modality(questions(), "text" if branch == "text" else "image_text")
    return locate(model, processor, asked, branch, top_k=2, n_steps=2)


def test_every_family_has_a_tiny_model_and_the_test_its_record():
    assert set(RECIPES) == set(FAMILIES)


def test_networks_are_found_in_both_branches(name, model):
    shapes = {branch: [ffn.n_neurons for ffn in ffns(model, branch)] for branch in ("text", "vision")}
    assert shapes == {"text": [TEXT_WIDTH] * N_LAYERS, "vision": [VISION_WIDTH] * BLOCKS[name]}


def test_labels_are_the_answer_and_its_end_alone(name, model, processor):
    for modality in ("text", "image_text"):
        asked = of_modality(questions(), modality)
        batch = encode(processor, asked)
        for row, question in enumerate(asked):
            kept = batch["labels"][row] != IGNORED
            end = FAMILIES[name].turn_end or processor.tokenizer.eos_token
            assert processor.tokenizer.decode(batch["input_ids"][row][kept]) == question.answer + end
            assert batch["labels"][row][kept].tolist() == batch["input_ids"][row][kept].tolist()
        start = processor.tokenizer.bos_token_id
        if start is not None:
            assert (batch["input_ids"] == start).sum(1).tolist() == [1] * len(asked)


def test_a_picture_becomes_the_stated_number_of_tokens_and_types_mark_them(name, model, processor):
    batch = encode(processor, of_modality(questions(3), "image_text"))
    grids = batch.get("image_grid_thw")
    patches = [None] * 3 if grids is None else grids.prod(-1).tolist()
    here = batch["input_ids"] == model.config.image_token_id
    assert here.sum(1).tolist() == [image_tokens(model.config, count) for count in patches]
    if kind := FAMILIES[name].token_types:
        assert torch.equal(batch[kind] == 1, here)


def test_the_answer_depends_on_picture_and_question(model, processor):
    asked = of_modality(questions(2), "image_text")
    batch = encode(processor, asked)
    other = batch | {"pixel_values": batch["pixel_values"].flip(-1)}
    assert not torch.allclose(logprob(model, batch), logprob(model, other), atol=1e-4)


def test_one_question_answers_alike_alone_and_beside_a_larger_picture(model, processor):
    asked = of_modality(questions(3), "image_text")
    together = encode(processor, asked)
    alone = [encode(processor, [question]) for question in asked]
    expected = torch.cat([logprob(model, batch) for batch in alone])
    torch.testing.assert_close(logprob(model, together), expected, atol=1e-4, rtol=1e-4)
    for row, batch in enumerate(alone):
        part = take_batch(repeat_batch(together, 2), row + 3, row + 4)
        assert torch.equal(part["pixel_values"], batch["pixel_values"])


def test_padding_on_either_side_gives_the_same_answer(model, processor):
    for modality in ("text", "image_text"):
        batch = encode(processor, of_modality(questions(3, 3), modality))
        real = batch["attention_mask"].sum(1)
        assert len(set(real.tolist())) == 3, "rows of one length test no padding"
        width = batch["input_ids"].shape[1]
        shifts = (width - real).tolist()
        pictures = ("pixel_values", "image_grid_thw")
        left = {
            key: tensor
            if key in pictures
            else torch.stack([row.roll(n) for row, n in zip(tensor, shifts, strict=True)])
            for key, tensor in batch.items()
        }
        torch.testing.assert_close(logprob(model, left), logprob(model, batch), atol=1e-4, rtol=1e-4)


def test_a_neuron_of_the_path_matters_and_one_beyond_the_features_does_not(name, model, processor):
    batch = encode(processor, of_modality(questions(), "image_text"))
    vanilla = logprob(model, batch)
    for ffn in ffns(model, "vision"):
        with zeroed([ffn]):
            assert not torch.allclose(logprob(model, batch), vanilla, atol=1e-5)
    if name == "llava":
        last = model.model.vision_tower.encoder.layers[N_BLOCKS - 1].mlp.fc2
        handle = last.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
        assert same_bits(logprob(model, batch), vanilla)
        handle.remove()


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_scores_are_the_gradient_of_a_neurons_gate(name, model, processor, branch):
    """Against finite differences: each layer's largest score, and its output column scaled in place of its gate."""
    asked = of_modality(questions(), "image_text")[:1]
    choices = {"kind": "igi", "n_steps": 1, "rule": "right", "search": "one_pass"}
    choices |= {"top_k": 1, "completeness": False, "target": "log_likelihood"}
    scores = locate(model, processor, asked, branch, **choices)
    assert scores.values.shape == (
        1,
        N_LAYERS if branch == "text" else BLOCKS[name],
        ffns(model, branch)[0].n_neurons,
    )
    batch = encode(processor, asked)
    tokens = (batch["labels"][:, 1:] != IGNORED).sum()
    for layer, ffn in enumerate(ffns(model, branch)):
        neuron = int(scores.values[0, layer].abs().argmax())
        column = ffn.output.weight[:, neuron].clone()
        values = []
        for scale in (1.1, 0.9):  # float32 log-likelihoods: a smaller step drowns in rounding
            ffn.output.weight[:, neuron] = column * scale
            values.append(logprob(model, batch) * tokens)
        ffn.output.weight[:, neuron] = column
        slope = float(values[0] - values[1]) / 0.2
        assert slope == pytest.approx(float(scores.values[0, layer, neuron]), rel=0.05)


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_scores_do_not_depend_on_the_batch(model, processor, branch):
    """Pictures of different size, questions of different length, alone and together, in passes of any size."""
    asked = of_modality(questions(3), "image_text")
    choices = {"top_k": 2, "n_steps": 2, "completeness": False}
    alone = locate(model, processor, asked, branch, batch_size=1, **choices)
    together = locate(model, processor, asked, branch, batch_size=3, max_rows=6, **choices)
    scale = alone.values.abs().max()
    torch.testing.assert_close(together.values / scale, alone.values / scale, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("branch", "modality"), PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("score", ["joint", "complete"])
def test_passes_that_share_their_beginnings_give_what_plain_ones_give(
    model, processor, branch, modality, score, monkeypatch
):
    asked = of_modality(questions(3), modality)
    choices = {"search": "greedy", "rule": "right", "score": score, "top_k": 3, "n_steps": 2}
    found = locate(model, processor, asked, branch, **choices).values
    monkeypatch.setattr(attribution, "shared", lambda probe: probe)
    plain = locate(model, processor, asked, branch, **choices).values
    torch.testing.assert_close(found, plain, atol=1e-5 * plain.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize(("branch", "modality"), PAIRS.values(), ids=PAIRS)
def test_every_family_is_entered_in_the_middle(model, processor, branch, modality):
    batch = encode(processor, of_modality(questions(3), modality))
    packed = branch == "vision" and "image_grid_thw" in batch
    with undisturbed(model):
        probe = shared(Probe(model, ffns(model, branch), batch, "probability", packed, 64))
    assert probe.place is not None


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_the_first_layers_joint_score_without_a_grid_is_the_gates_gradient(model, processor, branch):
    """No path is below it: the sum over positions of activation times gradient, whatever the positions are."""
    batch = encode(processor, of_modality(questions(3), "image_text"))
    choices = {"search": "gradient", "kind": "igi", "top_k": 2}
    joint, complete = (
        attribution.attribute(model, batch, branch, score=score, **choices).values
        for score in ("joint", "complete")
    )
    torch.testing.assert_close(joint[:, 0], complete[:, 0], atol=1e-6, rtol=1e-4)
    assert (joint[:, 0] != 0).any(1).all()


CHOSEN = [partial(learn_path, steps=30), partial(locate_in_rounds, rounds=8)]


@pytest.mark.parametrize("make", CHOSEN, ids=["learned", "in rounds"])
@pytest.mark.parametrize("branch", ["text", "vision"])
def test_a_path_that_is_set_against_others_takes_more_from_its_own_set(model, processor, branch, make):
    asked = of_modality(questions(), "text" if branch == "text" else "image_text")
    sets, networks = (asked[::2], asked[1::2]), ffns(model, branch)
    width = networks[0].n_neurons
    path = make(model, processor, *sets, branch, width // 4)
    path.check(model)
    assert path.sizes == (width // 4,) * len(networks)

    def apart(silent: NeuronPath) -> float:
        """How far the one set's F is below the other's with a path silenced."""
        with zeroed(networks, silent.layers):
            forget, retain = (logprob(model, encode(processor, part)).exp().mean() for part in sets)
        return float(retain - forget)

    assert apart(path) > max(apart(random_path(path, seed)) for seed in range(5))
    assert apart(path) > apart(make(model, processor, *sets[::-1], branch, width // 4))


@pytest.mark.parametrize("branch", ["text", "vision"])
def test_scores_of_rounds_are_the_same_whatever_goes_through_at_a_time(model, processor, branch):
    asked = of_modality(questions(6, 6), "text" if branch == "text" else "image_text")
    made = partial(scores_in_rounds, model, processor, asked[::2], asked[1::2], branch, 4, rounds=3)
    with torch.inference_mode():
        alone = made(max_rows=1, memory_gb=1.0)
    torch.testing.assert_close(made() / alone.abs().max(), alone / alone.abs().max(), atol=1e-4, rtol=1e-3)
    assert alone.shape == (len(ffns(model, branch)), ffns(model, branch)[0].n_neurons)
    with pytest.raises(ValueError, match="memory"):
        made(memory_gb=1e-6)
    with pytest.raises(ValueError, match=r"top_k is .*; expected"):
        locate_in_rounds(model, processor, asked[::2], asked[1::2], branch, [1])


def test_layers_that_no_gradient_comes_to_get_no_neurons_or_are_refused(name):
    """Everything up to the last language layer is cut off: which of its neurons come first would be their number."""
    model, processor = tiny(name)
    layer = model.model.language_model.layers[1]
    layer.forward = torch.no_grad()(layer.forward)
    asked = of_modality(questions(6, 6), "text")
    with pytest.warns(UserWarning, match=r"text layers \[0, 1\]"):
        assert select(located(model, processor, "text"), top_k=2).sizes == (0, 0, 2)
    sets = (asked[::2], asked[1::2], "text", 3)
    with pytest.warns(UserWarning, match=r"text layers \[0, 1\]"):
        assert locate_in_rounds(model, processor, *sets, rounds=2).sizes == (0, 0, 3)
    with pytest.raises(ValueError, match=r"no gradient reaches text layers \[0, 1\]"):
        learn_path(model, processor, *sets, steps=2)


def test_prune_edit_undo_evaluate_save_reload(name, model, processor, tmp_path):
    before = fingerprint(model)
    paths = [select(located(model, processor, branch), top_k=2) for branch in ("text", "vision")]
    batch = encode(processor, of_modality(questions(), "image_text"))
    pruned = prune(model, paths)
    with pruned.applied(model):
        for path in paths:
            networks = ffns(model, path.branch)
            after = logprob(model, batch)
            with zeroed(networks, path.layers):
                assert torch.allclose(logprob(model, batch), after, atol=1e-5)
            assert len(networks) == len(path.layers)
    assert fingerprint(model) == before
    batches = [training_batches(processor, questions(), 2, 4, seed) for seed in (0, 1)]
    config = EditConfig(layer_index=1, n_steps=3, learning_rate=1e-2)
    edited, history = edit(model, paths, *batches, config)
    assert len(history) == 3
    counts = bit_check(model, edited)
    assert (counts.changed_elsewhere, counts.changed_after_removal) == (0, 0)
    assert counts.changed > 0
    touched = {part.name.split(".layers.")[0].split(".blocks.")[0] for part in edited.slices}
    assert len(touched) == 2, "both branches are edited"
    stays_whole_on_disk(model, processor, edited, tmp_path)


def stays_whole_on_disk(model, processor, edited: Edit, folder):
    """The edit reloads, the edited model reloads, and both answer as the edited model does in memory."""
    edited.save(folder / "edit.safetensors")
    save_edited(model, processor, edited, folder / "edited")
    again, asker = load_model(folder / "edited"), load_processor(folder / "edited")
    with Edit.load(folder / "edit.safetensors").applied(model):
        assert fingerprint(again) == fingerprint(model)
        said = evaluate(model, processor, {"forget": questions()}, 2, 6)
    assert fingerprint(again) != fingerprint(model)
    assert evaluate(again, asker, {"forget": questions()}, 3, 6).generated.tolist() == said.generated.tolist()


def test_the_saved_processor_makes_the_same_batches(model, processor, tmp_path):
    save_model(model, processor, tmp_path / "model")
    again = load_processor(tmp_path / "model")
    for modality in ("text", "image_text"):
        first, second = (encode(p, of_modality(questions(), modality)) for p in (processor, again))
        assert first.keys() == second.keys()
        assert all(same_bits(first[key], second[key]) for key in first)


def test_fine_tuning_learns_the_answers_and_they_are_generated(name):
    model, processor = tiny(name)
    asked = questions(2, 2)
    losses = tune(model, processor, asked, 45, learning_rate=1e-2, batch_size=2)
    assert losses[-1] < 0.3 < losses[0]
    said = evaluate(model, processor, {"forget": asked}, 4, 12).generated.tolist()
    assert said == [question.answer for question in asked]


def test_lora_learns_in_the_language_layers_alone_and_leaves_no_trace(name, tmp_path):
    model, processor = tiny(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recipe = LoraRecipe(learning_rate=1e-2, epochs=12, batch_size=2)
    losses = tune_lora(model, processor, questions(2, 2), tmp_path / "lora.safetensors", recipe)
    assert losses[-1] < losses[0] - 1
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert not isinstance(model, PeftModel)
    changed = {key for key, value in after.items() if not same_bits(value, before[key])}
    layers = [key for key in before if ".language_model.layers." in key and before[key].dim() == 2]
    assert changed == set(layers)
    located(model, processor, "vision")


def test_a_picture_cut_into_several_is_refused():
    cutting = tiny("gemma3")[1]
    settings = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 4, "pan_and_scan_max_num_crops": 4}
    cutting.images_kwargs = cutting.images_kwargs | settings
    wide = [replace(of_modality(questions(1), "image_text")[0], image=picture(0, 64, 16))]
    with pytest.raises(ValueError, match=r"pictures of 1: expected one a question.*do_pan_and_scan"):
        encode(cutting, wide)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_vl"])
def test_networks_without_biases_are_pruned_edited_and_undone(name):
    """Gated (Qwen2.5-VL) and ungated (Qwen2-VL) vision networks; with their biases above."""
    model, processor = tiny(name)
    for ffn in ffns(model, "vision"):
        for linear in (*ffn.inputs, ffn.output):
            linear.bias = None
    path = select(located(model, processor, "vision"), top_k=3)
    batches = [training_batches(processor, questions(), 2, 4, seed) for seed in (0, 1)]
    edited, _ = edit(model, [path], *batches, EditConfig(layer_index=1, n_steps=2))
    counts = bit_check(model, edited)
    assert (counts.changed_elsewhere, counts.changed_after_removal) == (0, 0)
    batch = encode(processor, of_modality(questions(), "image_text"))
    with prune(model, [path]).applied(model):
        after = logprob(model, batch)
    with zeroed(ffns(model, "vision"), path.layers):
        torch.testing.assert_close(logprob(model, batch), after, atol=1e-5, rtol=1e-5)
