"""One processor everywhere: Pillow's pictures, no video part, a chat template in any case."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_families import RECIPES, picture, questions
from transformers import AutoImageProcessor, AutoProcessor
from transformers.utils import is_torchvision_available

from mipnb.batches import decode_image, encode
from mipnb.benchmarks import Question
from mipnb.edits import same_bits
from mipnb.models import load_processor
from mipnb.processors import Qwen2_5_VLProcessor

#: two pictures, neither of a size that needs no resizing
PICTURES = (picture(1, 50, 38), picture(2, 33, 61))
HERE = Path(__file__).parent
STUB = HERE.parent / "fixtures" / "torchvision"
PROGRAM = """
import sys
sys.path[:0] = [{here!r}]
if {present}:
    sys.path[:0] = [{stub!r}]
else:
    sys.modules["torchvision"] = None  # not importable, whatever is installed
import test_processors
test_processors.write_tensors({folders!r}, {target!r})
"""


def write_tensors(folders: dict[str, str], target: str) -> None:
    """What our processors, and the image processors that transformers chooses, make of two pictures."""
    tensors, classes = {}, {"torchvision": str(is_torchvision_available())}
    asked = [Question("p", "VGEN", "Who is this?", "Oslo.", image=image) for image in PICTURES]
    for name, folder in folders.items():
        own, default = load_processor(folder), AutoImageProcessor.from_pretrained(folder)
        made = default(images=[decode_image(image) for image in PICTURES], return_tensors="pt")
        tensors |= {f"{name} own {key}": tensor.contiguous() for key, tensor in encode(own, asked).items()}
        tensors[f"{name} default pixel_values"] = made["pixel_values"].contiguous()
        found = {"own": own.image_processor, "default": default}
        classes |= {f"{name} {which}": type(processor).__name__ for which, processor in found.items()}
    save_file(tensors, target, metadata=classes)


@pytest.fixture(scope="module")
def made(folders, tmp_path_factory):
    """Tensors and classes in a process without torchvision and in one with the stand-in for it."""
    found = {}
    for present in (False, True):
        target = tmp_path_factory.mktemp("made") / "tensors.safetensors"
        given = {name: str(folder) for name, folder in folders.items()}
        program = PROGRAM.format(
            here=str(HERE), stub=str(STUB), present=present, folders=given, target=str(target)
        )
        path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, check=True)
        with safe_open(target, "pt") as file:
            found[present] = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_pictures_become_the_same_tensors_with_and_without_torchvision(made, name):
    """Where torchvision is there, transformers chooses it, and pictures differ; ours do not.

    The library itself is not among the pinned packages: in its place stands a package of that name with torch's own
    resizing, by which transformers finds torchvision and loads its classes that need it.
    """
    (without, classes_without), (with_it, classes_with) = made[False], made[True]
    assert (classes_without["torchvision"], classes_with["torchvision"]) == ("False", "True")
    assert classes_with[f"{name} own"] == classes_without[f"{name} own"]
    assert classes_with[f"{name} own"].endswith("Pil")
    keys = [key for key in without if key.startswith(f"{name} own")]
    assert f"{name} own pixel_values" in keys
    assert keys == [key for key in with_it if key.startswith(f"{name} own")]
    assert all(same_bits(without[key], with_it[key]) for key in keys)
    if name.startswith("qwen"):
        first, second = with_it[f"{name} own image_grid_thw"].tolist()
        assert first != second, "pictures of two sizes"
    assert not classes_with[f"{name} default"].endswith("Pil"), "transformers' own choice"
    default = with_it[f"{name} default pixel_values"]
    assert not torch.equal(default, without[f"{name} default pixel_values"])
    torch.testing.assert_close(default, without[f"{name} default pixel_values"], rtol=0, atol=0.1)


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
