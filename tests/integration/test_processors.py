"""One processor everywhere: Pillow's pictures, no video part, a chat template in any case."""

import json
import shutil

import pytest
from tiny_families import RECIPES, questions
from transformers import AutoImageProcessor, AutoProcessor
from transformers.models.auto import image_processing_auto

from mipnb.batches import encode
from mipnb.edits import same_bits
from mipnb.models import load_processor
from mipnb.processors import Qwen2_5_VLProcessor


@pytest.mark.parametrize("name", RECIPES)
def test_torchvisions_image_processor_is_never_chosen(folders, monkeypatch, name):
    """Where torchvision is there, transformers would choose it, and pictures would differ in the last digits."""
    load = image_processing_auto._load_class_with_fallback

    def load_either(mapping, backend):
        pillow = load(mapping, "pil")
        return pillow if backend == "pil" else type("WithTorchvision", (pillow,), {})

    monkeypatch.setattr(image_processing_auto, "is_torchvision_available", lambda: True)
    monkeypatch.setattr(image_processing_auto, "_load_class_with_fallback", load_either)
    assert type(AutoImageProcessor.from_pretrained(folders[name])).__name__ == "WithTorchvision"
    assert type(load_processor(folders[name]).image_processor).__name__.endswith("Pil")


def test_the_own_processor_is_the_hubs_for_text_and_pictures(folders):
    """The hub's class, given a video part that is never asked, makes the same tensors."""
    own = load_processor(folders["qwen2_5_vl"])
    hub = Qwen2_5_VLProcessor.__mro__[2]
    assert hub.__module__.startswith("transformers.")
    theirs = object.__new__(hub)
    for key in ("image_processor", "tokenizer", "chat_template", "image_token", "video_token"):
        setattr(theirs, key, getattr(own, key))
    theirs.image_token_id, theirs.video_token_id = own.image_token_id, own.video_token_id
    first, second = encode(own, questions(2, 0)), encode(theirs, questions(2, 0))
    assert all(same_bits(first[key], second[key]) for key in first)


def test_other_families_are_transformers_own(folders):
    for name in ("llava", "gemma3"):
        own, plain = load_processor(folders[name]), AutoProcessor.from_pretrained(folders[name])
        assert type(own) is type(plain)
        first, second = encode(own, questions(2, 0)), encode(plain, questions(2, 0))
        assert all(same_bits(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", RECIPES)
def test_a_checkpoint_without_chat_template_gets_the_familys(folders, tmp_path, name):
    bare = shutil.copytree(folders[name], tmp_path / name)
    (bare / "chat_template.jinja").unlink()
    first, second = (encode(load_processor(place), questions(2, 0)) for place in (folders[name], bare))
    assert all(same_bits(first[key], second[key]) for key in first)


def test_an_early_llava_checkpoint_is_completed_from_its_configuration(folder):
    expected = encode(load_processor(folder), questions(2, 0))
    file = folder / "processor_config.json"
    stored_settings = json.loads(file.read_text())
    for key in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        stored_settings.pop(key, None)
    file.write_text(json.dumps(stored_settings))
    found = encode(load_processor(folder), questions(2, 0))
    assert all(same_bits(found[key], expected[key]) for key in expected)
