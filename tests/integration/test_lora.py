"""LoRA: an interrupted training ends where an uninterrupted one does, bit for bit, and knows which training it is."""

import pytest
import torch
from tiny_families import questions, tiny

from mipnb.edits import same_bits
from mipnb.lora import LoraRecipe, n_steps, tune_lora
from mipnb.remake import remake_by_lora

RECIPE = LoraRecipe(learning_rate=1e-2, epochs=4, batch_size=2, save_every=3)  # 8 steps, dropout 0.1


class PowerCut(Exception):
    pass


def tuned(path, stop_at: int | None = None, recipe: LoraRecipe = RECIPE, seed: int = 1, asked=None):
    """Weights and losses; interrupted after a step if told so."""
    model, processor = tiny("qwen2_5_vl")

    def report(step: int, loss: float) -> None:
        if step == stop_at:
            raise PowerCut

    losses = tune_lora(model, processor, asked or questions(4, 4), path, recipe, seed, report)
    return model.state_dict(), losses


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    expected, losses = tuned(tmp_path / "whole.safetensors")
    assert len(losses) == 8 == n_steps(questions(4, 4), RECIPE)
    for step in (4, 7):  # one step after a checkpoint (3, 6), and at the end
        with pytest.raises(PowerCut):
            tuned(tmp_path / f"{step}.safetensors", step)
        torch.manual_seed(99)  # another process: another random state
        weights, again = tuned(tmp_path / f"{step}.safetensors")
        assert again == losses
        assert all(same_bits(weights[key], expected[key]) for key in expected)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def fail(tensors, path, metadata) -> None:
        path.write_bytes(b"half")
        raise PowerCut

    with pytest.raises(PowerCut):
        tuned(tmp_path / "lora.safetensors", 3)  # after the first checkpoint
    kept = (tmp_path / "lora.safetensors").read_bytes()
    monkeypatch.setattr("mipnb.records.save_file", fail)
    with pytest.raises(PowerCut):
        tuned(tmp_path / "lora.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["lora.safetensors"]
    assert (tmp_path / "lora.safetensors").read_bytes() == kept


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 2}, "seed 1, now 2"),
        ({"recipe": LoraRecipe(rank=4)}, "recipe {"),
        ({"asked": questions(4, 3)}, "questions '"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, changed, words):
    with pytest.raises(PowerCut):
        tuned(tmp_path / "lora.safetensors", 3)
    with pytest.raises(ValueError, match="is of another training") as caught:
        tuned(tmp_path / "lora.safetensors", **changed)
    assert words in str(caught.value)
    assert "delete it" in str(caught.value)


def test_no_questions_are_refused(tmp_path):
    model, processor = tiny("qwen2_5_vl")
    with pytest.raises(ValueError, match="no question to fine-tune on"):
        tune_lora(model, processor, [], tmp_path / "lora.safetensors")


def test_rank_and_alpha_are_the_updates(tmp_path):
    """The merged weights differ from the base by a matrix of the stated rank."""
    base = tiny("qwen2_5_vl")[0].state_dict()
    weights, _ = tuned(
        tmp_path / "lora.safetensors", recipe=LoraRecipe(rank=2, epochs=2, batch_size=2, learning_rate=0.1)
    )
    name = "model.language_model.layers.1.mlp.gate_proj.weight"
    sizes = torch.linalg.svdvals(weights[name] - base[name])
    assert sizes[1] > 1e-3 > 1e-5 > sizes[2]


def test_the_paper_is_the_default():
    recipe = LoraRecipe()
    assert (recipe.rank, recipe.alpha, recipe.dropout) == (8, 16, 0.1)


def test_the_vanilla_folder_is_whole_and_the_checkpoint_gone(tmp_path, monkeypatch):
    from mipnb.models import load_model, save_model

    model, processor = tiny("llava")
    save_model(model, processor, tmp_path / "base")
    monkeypatch.setattr("mipnb.remake.load_training", lambda root, split: questions(2, 2))
    made, losses = remake_by_lora("", tmp_path / "base", tmp_path, 1, RECIPE, None, dtype="bfloat16")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "vanilla"}
    assert losses.phase.unique().tolist() == ["lora"]
    assert {parameter.dtype for parameter in load_model(made, "bfloat16").parameters()} == {torch.bfloat16}
