"""Where each model family keeps its feed-forward networks, and how a model and its processor are loaded.

A *family* is a record, not code: dotted paths that are resolved on the loaded model and fail on a wrong count. Paths were
read off transformers 5.23 on the meta device. A *neuron* is one input column of a feed-forward network's last linear layer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor as _HubProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available
from transformers.utils.logging import disable_progress_bar

from mipnb.artefacts import read_json, require, sha256, under_root

BRANCHES = ("text", "vision")
disable_progress_bar()  # a bar in a notebook's output differs from run to run


@dataclass(frozen=True)
class Branch:
    """Where one branch's feed-forward networks are.

    Attributes:
        layers: dotted path of the list of layers.
        inputs: names, below a layer, of the linear layers that make the activation: (gate, up), or (fc1,).
        output: name, below a layer, of the last linear layer; its input columns are the neurons.
        activation: name, below a layer, of the non-linearity.
        count: dotted path, in the configuration, of the number of layers.
        width: dotted path, in the configuration, of the number of neurons a layer.
    """

    layers: str
    inputs: tuple[str, ...]
    output: str
    activation: str
    count: str
    width: str


_GATED = (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "mlp.act_fn")
_QWEN_TEXT = Branch(
    "model.language_model.layers", *_GATED, "text_config.num_hidden_layers", "text_config.intermediate_size"
)

FAMILIES: dict[str, dict[str, Branch]] = {
    "qwen2_5_vl": {
        "text": _QWEN_TEXT,
        "vision": Branch(
            "model.visual.blocks", *_GATED, "vision_config.depth", "vision_config.intermediate_size"
        ),
    },
    "qwen2_vl": {
        "text": _QWEN_TEXT,
        # Qwen2-VL has no vision intermediate_size: the width is read off the module (mlp_ratio x embed_dim).
        "vision": Branch(
            "model.visual.blocks", ("mlp.fc1",), "mlp.fc2", "mlp.act", "vision_config.depth", ""
        ),
    },
}


@dataclass(frozen=True, eq=False)
class FFN:
    """One feed-forward network, resolved on a loaded model.

    Attributes:
        name: dotted name of the layer it sits in.
        inputs: the linear layers that make the activation, (gate, up) or (fc1,); weights (d_ff, hidden).
        output: the last linear layer, weight (hidden, d_ff).
        input_names: dotted names of `inputs`.
        output_name: dotted name of `output`.
        activation: the non-linearity.
    """

    name: str
    inputs: tuple[nn.Linear, ...]
    output: nn.Linear
    input_names: tuple[str, ...]
    output_name: str
    activation: nn.Module

    @property
    def n_neurons(self) -> int:
        """Number of neurons, d_ff."""
        return self.output.in_features

    @property
    def gated(self) -> bool:
        """Whether the activation is act(gate(x)) * up(x), rather than act(fc1(x))."""
        return len(self.inputs) == 2


def family(model_type: str) -> dict[str, Branch]:
    """The record of a model family; ValueError if there is none."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(
            f"model_type {model_type!r} has no family record; known: {known}. Add one to FAMILIES."
        )
    return FAMILIES[model_type]


def _lookup(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def _layers(model: nn.Module, branch: str) -> tuple[str, nn.ModuleList]:
    if branch not in BRANCHES:
        raise ValueError(f"branch {branch!r} is not one of {BRANCHES}")
    record = family(model.config.model_type)[branch]
    expected = _lookup(model.config, record.count)
    try:
        layers = _lookup(model, record.layers)
    except AttributeError:
        names = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
        raise ValueError(f"no {record.layers} in this model; its lists of layers are {names}") from None
    if len(layers) != expected:
        raise ValueError(f"{record.layers} holds {len(layers)} layers, the configuration says {expected}")
    return record.layers, layers


def ffns(model: nn.Module, branch: str) -> list[FFN]:
    """The feed-forward networks of a branch, first layer first.

    Args:
        model: a loaded model of a known family.
        branch: "text" or "vision".

    Raises:
        ValueError: unknown family or branch; a module is missing or the count is wrong (names found are given).
    """
    prefix, layers = _layers(model, branch)
    record = family(model.config.model_type)[branch]
    return [_ffn(f"{prefix}.{index}", layer, record) for index, layer in enumerate(layers)]


def _ffn(name: str, layer: nn.Module, record: Branch) -> FFN:
    try:
        inputs = tuple(_lookup(layer, path) for path in record.inputs)
        output, activation = _lookup(layer, record.output), _lookup(layer, record.activation)
    except AttributeError:
        found = [child for child, module in layer.named_modules() if isinstance(module, nn.Linear)]
        raise ValueError(
            f"{name} lacks {(*record.inputs, record.output)}; its linear layers are {found}"
        ) from None
    names = tuple(f"{name}.{path}" for path in record.inputs)
    return FFN(name, inputs, output, names, f"{name}.{record.output}", activation)


def text_layers(model: nn.Module) -> nn.ModuleList:
    """The language model's decoder layers, whose outputs are the hidden states (batch, tokens, hidden)."""
    return _layers(model, "text")[1]


def ffn_sizes(folder: str | Path) -> dict[str, tuple[int, int]]:
    """(layers, neurons a layer) of each branch, from the configuration and an empty model; loads no weights."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    found = {branch: ffns(model, branch) for branch in BRANCHES}
    return {branch: (len(items), items[0].n_neurons) for branch, items in found.items()}


def load_model(folder: str | Path, dtype: str = "float32", device: str = "cpu") -> nn.Module:
    """Load a model for locating, editing and evaluating: eval mode, no parameter takes a gradient.

    Args:
        folder: a local folder (its checksums.json, if there is one, is verified), or a hub name.
        dtype: "float32" or "bfloat16".
        device: "cpu", "cuda", ...
    """
    torch.set_flush_denormal(
        True
    )  # before torch's threads start: they keep it, and fading moments stay cheap
    if Path(folder).is_dir():
        verify_checksums(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.to(device).eval().requires_grad_(False)


class Qwen2_5_VLProcessor(_HubProcessor):
    """The hub's processor without its video part, which needs torchvision; saved folders look the same."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def load_processor(folder: str | Path):
    """The processor of a model folder: tokenizer, chat template and image processor.

    Where torchvision is present this is transformers' own AutoProcessor. Without it AutoProcessor cannot load the
    video part of Qwen2.5-VL, and the PIL image processor with the folder's tokenizer makes the same tensors.
    """
    if is_torchvision_available() or AutoConfig.from_pretrained(folder).model_type != "qwen2_5_vl":
        return AutoProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image_processor = AutoImageProcessor.from_pretrained(folder)
    return Qwen2_5_VLProcessor(image_processor, tokenizer, chat_template=tokenizer.chat_template)


def run_model(stage: str | Path) -> Path:
    """The vanilla model's folder of a run, as its first notebook left it in model.json.

    Args:
        stage: that notebook's folder, runs/<name>/01_vanilla_model.
    """
    return under_root(read_json(require(Path(stage) / "model.json", made_by="01_vanilla_model"))["folder"])


def fingerprint(model: nn.Module) -> str:
    """A 16-digit name of a model's weights: every parameter's name and shape, and a sample of its values.

    Computed in float32, so a model has one name whether it is loaded in bfloat16 or float32 from the same file.
    """
    digest = hashlib.sha256(model.config.model_type.encode())
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 1024)].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def verify_checksums(folder: str | Path) -> None:
    """Compare a folder's files with its checksums.json, if it has one.

    Raises:
        ValueError: a file is missing or damaged; the message names it and how to get it back.
    """
    folder = Path(folder)
    if not (folder / "checksums.json").exists():
        return
    for name, expected in read_json(folder / "checksums.json").items():
        found = sha256(folder / name) if (folder / name).exists() else "no such file"
        if found != expected:
            raise ValueError(
                f"{folder / name} is damaged: sha256 {found}, expected {expected}. Restore it with "
                f"`git checkout -- {folder}`, or remake it with `mipnb run -p retrain True`."
            )


def checksums(folder: str | Path) -> str:
    """The text of checksums.json for a folder: {file name: sha256}."""
    files = sorted(p for p in Path(folder).iterdir() if p.is_file() and p.name != "checksums.json")
    return json.dumps({path.name: sha256(path) for path in files}, indent=1) + "\n"
