"""Setting up edits and looking at them, on a random Qwen2.5-VL of a few thousand parameters."""

import pytest
import torch
from test_editing import TEXT_NEURONS, VISION_NEURONS, _paths
from tiny_qwen import tiny_batch, tiny_model

from mipnb.editing import edit, prune
from mipnb.edits import Edit
from mipnb.params import Params
from mipnb.paths import NeuronPath
from mipnb.rmisu import EditConfig
from mipnb.trials import (
    bit_check,
    edit_config,
    gradient_sentence,
    gradient_table,
    load_edits,
    load_paths,
    sizes,
)


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def paths(model):
    return _paths(model, TEXT_NEURONS, VISION_NEURONS)


@pytest.fixture
def sets():
    return [tiny_batch(1, False), tiny_batch(2, True)], [tiny_batch(4, False), tiny_batch(5, True)]


def test_parameters_reach_the_editing():
    changed = {
        "layer_index": 3, "forget_tokens": "prompt", "steering_scale": 2.5, "forget_weight": 0.5,
        "retain_weight": 7.0, "ce_weight": 9.0, "learning_rate": 0.25, "retain_tokens": "prompt",
    }  # fmt: skip
    config = edit_config(Params(**changed, edit_steps=17))
    assert {name: getattr(config, name) for name in changed} == changed
    assert config.n_steps == 17
    assert config.clip_norm == EditConfig().clip_norm


def test_the_bit_check_counts(model, paths):
    counts = bit_check(model, prune(model, paths))
    assert counts.numbers == sum(tensor.numel() for tensor in model.state_dict().values())
    assert 0 < counts.changed <= counts.may_change < counts.numbers
    assert counts.changed_elsewhere == counts.changed_after_removal == 0


def test_the_bit_check_sees_a_change_elsewhere_and_one_that_stays(model, paths, monkeypatch):
    put = Edit.apply

    def careless(self, target):
        put(self, target)
        target.lm_head.weight.data[0, 0] += 1  # tied: the one tensor stands in the state dict under two names

    monkeypatch.setattr(Edit, "apply", careless)
    counts = bit_check(model, prune(model, paths))
    assert counts.changed_elsewhere >= 1
    assert counts.changed_after_removal == counts.changed_elsewhere


def test_layers_above_the_steered_one_learn_from_answers_alone(model, paths, sets):
    table = gradient_table(model, paths, *sets, EditConfig(layer_index=1)).set_index(["branch", "layer"])
    assert table.loc[("text", 2), ["L_f", "L_r"]].tolist() == [0, 0]
    assert (table.drop(index=("text", 2))[["L_f", "L_r"]] > 0).all(axis=None)
    assert (table.L_CE > 0).all()
    assert table.neurons.tolist() == [3, 2, 1, 2, 2]
    assert "trains the neurons of layers: text 0, 1; vision 0, 1\n" in gradient_sentence(table.reset_index())


def test_paths_and_edits_are_found_by_name(model, paths, sets, tmp_path):
    for path in paths:
        path.save(tmp_path / f"{path.branch}.safetensors")
        path.save(tmp_path / f"random_{path.branch}_0.safetensors")
    assert [path.layers for path in load_paths(tmp_path, model)] == [path.layers for path in paths]
    assert [path.branch for path in load_paths(tmp_path, model, 0)] == ["text", "vision"]
    with pytest.raises(FileNotFoundError, match=r"random_text_1.*03_paths"):
        load_paths(tmp_path, model, 1)
    found, _ = edit(model, paths, *sets, EditConfig(n_steps=1))
    for name in ("prune", "edited_4", "random_4"):
        found.save(tmp_path / f"{name}.safetensors")
    assert list(load_edits(tmp_path, [4])) == [("prune", 4), ("edited", 4), ("random", 4)]
    with pytest.raises(FileNotFoundError, match="04_editing"):
        load_edits(tmp_path, [4, 5])


def test_paths_of_another_model_are_refused(model, paths, tmp_path):
    for path in paths:
        NeuronPath(path.branch, path.layers, path.n_neurons, "0" * 16).save(
            tmp_path / f"{path.branch}.safetensors"
        )
    with pytest.raises(ValueError, match="this text path is of model 0000"):
        load_paths(tmp_path, model)


def test_sizes_are_shares_of_the_last(tmp_path):
    (tmp_path / "edit").write_bytes(b"x" * 500)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.safetensors").write_bytes(b"x" * 2000)
    (tmp_path / "model" / "tokenizer.json").write_bytes(b"x" * 999)
    table = sizes({"edit": tmp_path / "edit", "model": tmp_path / "model"})
    assert table.kB.tolist() == [0.5, 2.0]
    assert table.share.tolist() == [0.25, 1.0]


def test_the_tiny_model_is_as_it_was(model, paths, sets):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradient_table(model, paths, *sets, EditConfig())
    bit_check(model, prune(model, paths))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
