"""Loading: what is refused and how it is told; offloading, attention, checkpointing."""

import json
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_module
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_families import questions, tiny
from transformers import LlamaConfig

from mipnb.batches import encode
from mipnb.editing import prune
from mipnb.edits import same_bits
from mipnb.evaluation import evaluate
from mipnb.locating import locate, of_modality
from mipnb.models import (
    check_model,
    check_space,
    ffn_sizes,
    fingerprint,
    input_device,
    load_model,
    load_processor,
    local_folder,
    save_model,
    stored,
    text_layers,
)
from mipnb.paths import select
from mipnb.sources import model_source
from mipnb.steering import hidden_state
from mipnb.training import answer_loss


def rewrite(folder, change) -> None:
    """Change the weights' dictionary in a folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


class TestWrongPlaces:
    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no folder .*/data/pocket/vanilly.* is no hub id"):
            load_model("data/pocket/vanilly")
        with pytest.raises(FileNotFoundError, match=r"no folder .*/data/pocked"):
            load_model("data/pocked")  # no hub id: data/ is a folder of the project

    def test_a_folder_without_a_model(self, tmp_path):
        (tmp_path / "weights.bin").touch()
        for refuse in (load_model, load_processor, check_model, ffn_sizes):
            with pytest.raises(FileNotFoundError, match=r"no config\.json; it holds \['weights\.bin'\]"):
                refuse(tmp_path)

    def test_a_folder_without_weights(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"weights of .*llava cannot be read.*model\.safetensors"):
            load_model(folder)

    def test_a_text_only_model(self, tmp_path):
        LlamaConfig().save_pretrained(tmp_path)
        with pytest.raises(
            ValueError, match=r"text-only model .*'llama', no vision_config.*expected .*gemma3"
        ):
            load_model(tmp_path)

    def test_a_family_without_record(self, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "idefics3"}))
        with pytest.raises(ValueError, match="'idefics3' has no family record"):
            load_model(tmp_path)

    def test_an_unknown_device_map(self, folder):
        with pytest.raises(ValueError, match="device_map 'both' is not one of one, auto, offload"):
            load_model(folder, device_map="both")


class TestHub:
    NAME = "some-owner/some-model"

    def test_offline_and_not_cached(self, monkeypatch, tmp_path):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        for refuse in (check_model, local_folder):
            with pytest.raises(
                FileNotFoundError, match=r"hub model some-owner/some-model .*no connection.*hf download"
            ):
                refuse(self.NAME)

    def test_gated(self, monkeypatch):
        response = SimpleNamespace(headers={}, request=None)
        for where in ("mipnb.sources.snapshot_download", "mipnb.sources.AutoConfig.from_pretrained"):
            monkeypatch.setattr(
                where, raiser(GatedRepoError("Access is restricted.\nMore.", response=response))
            )
        for refuse in (check_model, local_folder):
            with pytest.raises(FileNotFoundError, match=r"\(revision v1\).*it is gated: accept its licence"):
                refuse(self.NAME, "v1")

    def test_transformers_words_for_a_gated_model_are_understood(self, monkeypatch):
        """It raises an OSError from the hub's own."""
        response = SimpleNamespace(headers={}, request=None)
        gated = GatedRepoError("Access is restricted.", response=response)
        monkeypatch.setattr("transformers.utils.hub.hf_hub_download", raiser(gated))
        with pytest.raises(FileNotFoundError, match="it is gated"):
            check_model(self.NAME)

    def test_the_pinned_snapshot_is_what_is_loaded(self, monkeypatch, folders):
        asked = []

        def download(name, revision, allow_patterns):
            asked.append((name, revision))
            return str(folders["gemma3"])

        reader = SimpleNamespace(from_pretrained=lambda name, revision: SimpleNamespace(model_type="gemma3"))
        monkeypatch.setattr("mipnb.sources.snapshot_download", download)
        monkeypatch.setattr("mipnb.sources.AutoConfig", reader)
        model = load_model(self.NAME, revision="0a1b2c")
        assert fingerprint(model) == fingerprint(load_model(folders["gemma3"]))
        assert asked == [(self.NAME, "0a1b2c")]
        assert local_folder(folders["gemma3"]) == folders["gemma3"]

    def test_a_folder_wins_over_a_hub_id_of_the_same_name(self, monkeypatch, tmp_path):
        monkeypatch.setattr("mipnb.sources.under_root", lambda name: tmp_path / name)
        assert model_source(self.NAME) == self.NAME
        (tmp_path / self.NAME).mkdir(parents=True)
        assert model_source(self.NAME) == str(tmp_path / self.NAME)

    def test_an_unreachable_hub_is_told_once(self):
        error = LocalEntryNotFoundError("first line\nsecond line")
        from mipnb.sources import _unavailable

        assert "second line" not in str(_unavailable(self.NAME, "", error))


def raiser(error: Exception):
    def refuse(*args, **kwargs):
        raise error

    return refuse


class TestForeignWeights:
    OLD, NEW = "layers.1.mlp.down_proj", "layers.1.feed_forward.down_proj"

    def test_a_renamed_weight_is_missing_and_unexpected(self, folder):
        name = next(
            key for key in load_file(folder / "model.safetensors") if self.OLD in key and "weight" in key
        )
        rewrite(folder, lambda tensors: tensors.update({name.replace(self.OLD, self.NEW): tensors.pop(name)}))
        with pytest.raises(
            ValueError, match=r"1 missing .*layers\.1\.mlp\.down_proj\.weight.*1 unexpected"
        ) as caught:
            load_model(folder)
        assert self.NEW in str(caught.value)
        assert "another transformers version" in str(caught.value)

    def test_a_weight_of_another_shape(self, folder):
        def shorten(tensors: dict) -> None:
            name = next(key for key in tensors if self.OLD in key and "weight" in key)
            tensors[name] = tensors[name][:, :-1].contiguous()

        rewrite(folder, shorten)
        with pytest.raises(
            ValueError, match=r"1 of another shape \(.*down_proj.weight \(32, 23\) for \(32, 24\)\)"
        ):
            load_model(folder)

    def test_a_torn_file(self, folder):
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"weights of .*llava are damaged"):
            load_model(folder)


class TestDisk:
    def test_too_little_room_is_told_before_anything_is_written(self, monkeypatch, tmp_path):
        usage = namedtuple("usage", "total used free")(2**40, 2**40, 2**20)
        monkeypatch.setattr("mipnb.models.shutil.disk_usage", lambda path: usage)
        with pytest.raises(
            ValueError, match=r"edited needs 0\.06 GiB, the disk has 0\.00 GiB free: make room"
        ):
            save_model(*tiny("llava"), tmp_path / "new" / "edited")
        assert list(tmp_path.iterdir()) == []

    def test_the_models_size_counts(self, monkeypatch, tmp_path):
        usage = namedtuple("usage", "total used free")(2**40, 0, 2**30)
        monkeypatch.setattr("mipnb.models.shutil.disk_usage", lambda path: usage)
        check_space(tmp_path, 2**29)
        with pytest.raises(ValueError, match=r"needs 1\.06 GiB, the disk has 1\.00"):
            check_space(tmp_path, 2**30)


class TestOffload:
    @pytest.fixture(params=["qwen2_5_vl", "llava", "gemma3"])
    def pair(self, request, folders):
        """The same model offloaded to CPU memory by accelerate, and plain; and its processor."""
        place = folders[request.param]
        return load_model(place, device_map="offload"), load_model(place), load_processor(place)

    def test_weights_are_put_away_and_keep_their_name(self, pair):
        offloaded, plain, _ = pair
        assert all(parameter.is_meta for parameter in offloaded.parameters())
        assert fingerprint(offloaded) == fingerprint(plain)
        assert input_device(offloaded) == torch.device("cpu")

    def test_it_answers_alike_with_and_without_an_edit(self, pair):
        offloaded, plain, processor = pair
        path = select(locate(plain, processor, of_modality(questions(), "text"), "text", top_k=3), top_k=3)
        pruned = prune(plain, [path])
        said = {}
        for model in (plain, offloaded):
            before = evaluate(model, processor, {"forget": questions()}, 2, 5).generated.tolist()
            with pruned.applied(model):
                after = evaluate(model, processor, {"forget": questions()}, 2, 5).generated.tolist()
                state = hidden_state(model, encode(processor, questions(0, 2)), text_layers(model)[2])
            assert not pruned.is_applied(model)
            said[model is plain] = (before, after, state)
        assert said[True][:2] == said[False][:2]
        assert said[True][0] != said[True][1]
        torch.testing.assert_close(said[True][2], said[False][2])

    def test_scores_are_of_weights_that_are_there_or_in_float32(self, pair, folders):
        offloaded, plain, processor = pair
        asked = of_modality(questions(), "text")
        found, expected = (
            locate(model, processor, asked, "text", top_k=3).values for model in (offloaded, plain)
        )
        torch.testing.assert_close(found, expected)
        place = next(
            place for place in folders.values() if fingerprint(load_model(place)) == fingerprint(plain)
        )
        rounded = load_model(place, "bfloat16", device_map="offload")
        with pytest.raises(ValueError, match=r"weights of this model are offloaded, in torch\.bfloat16"):
            locate(rounded, processor, asked, "text", top_k=3)

    def test_a_hidden_state_leaves_every_weight_put_away(self, pair):
        """Also where a hook around the layer, which ends after it, has brought all its weights."""
        _, plain, processor = pair
        batch, name = encode(processor, questions(2, 0)), fingerprint(plain)
        expected = hidden_state(plain, batch, text_layers(plain)[0])
        cpu_offload(plain, preload_module_classes=[type(plain.model).__name__])
        assert same_bits(hidden_state(plain, batch, text_layers(plain)[0]), expected)
        assert all(parameter.is_meta for parameter in plain.parameters())
        assert fingerprint(plain) == name
        remove_hook_from_module(plain, recurse=True)
        assert fingerprint(plain) == name

    def test_a_model_without_values_has_no_name(self):
        with torch.device("meta"):
            model = type(tiny("llava")[0])(tiny("llava")[0].config)
        with pytest.raises(ValueError, match="on the meta device"):
            fingerprint(model)
        with pytest.raises(AttributeError):
            stored(model, "model.nothing")


class TestOptions:
    def test_attention_implementations_agree(self, folders):
        batch = encode(load_processor(folders["gemma3"]), questions(2, 0))
        labels = batch.pop("labels")
        logits = []
        for attention in ("sdpa", "eager"):
            model = load_model(folders["gemma3"], attention=attention)
            assert model.config.text_config._attn_implementation == attention
            logits.append(model(**batch).logits[labels != -100])
        torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)

    def test_gradient_checkpointing_changes_no_gradient(self, folders):
        batch = encode(load_processor(folders["qwen2_vl"]), questions(2, 0))
        gradients = []
        for checkpointing in (False, True):
            model = load_model(folders["qwen2_vl"], gradient_checkpointing=checkpointing)
            assert model.is_activation_checkpointing == checkpointing
            model.train().requires_grad_(True)
            answer_loss(model, batch).backward()
            gradients.append(model.model.visual.blocks[0].mlp.fc1.weight.grad)
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().max() > 0

    def test_dtypes(self, folders):
        for dtype in ("float32", "bfloat16"):
            parameters = load_model(folders["gemma3"], dtype).parameters()
            assert {parameter.dtype for parameter in parameters} == {getattr(torch, dtype)}
