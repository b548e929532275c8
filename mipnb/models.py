"""Loading a model, naming its weights, and saving it; families, networks and processors are found here too."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import cpu_offload
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

from mipnb.artefacts import atomic_path, read_json, require, sha256, under_root
from mipnb.families import BRANCHES, FAMILIES, Branch, Family, family
from mipnb.networks import FFN, ffns, text_layers, vision_tower
from mipnb.processors import Qwen2_5_VLProcessor, load_processor
from mipnb.sources import check_model, ffn_sizes, local_folder, verify_checksums

__all__ = [
    "BRANCHES", "DEVICE_MAPS", "FAMILIES", "FFN", "Branch", "Family", "Qwen2_5_VLProcessor", "check_model", "check_space",
    "checksums", "family", "ffn_sizes", "ffns", "fingerprint", "input_device", "is_dispatched", "load_model",
    "load_processor", "local_folder", "run_model", "save_model", "stored", "text_layers", "verify_checksums", "vision_tower",
]  # fmt: skip

DEVICE_MAPS = ("one", "auto", "offload")
disable_progress_bar()  # a bar in a notebook's output differs from run to run


def load_model(
    folder: str | Path,
    dtype: str = "float32",
    device: str = "cpu",
    *,
    revision: str = "",
    device_map: str = "one",
    attention: str = "",
    gradient_checkpointing: bool = False,
) -> nn.Module:
    """Load a model for locating, editing and evaluating: eval mode, no parameter takes a gradient.

    Args:
        folder: a local folder (its checksums.json, if there is one, is verified), or a hub id.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu", "cuda", ...
        revision: commit, tag or branch of a hub model; "" for its default.
        device_map: "one": all of it on `device`; "auto": spread by accelerate over all GPUs; "offload": kept in CPU
            memory and brought to `device` layer by layer, for evaluating only (edits are applied to it as to any).
        attention: "sdpa", "eager", "flash_attention_2"; "" for transformers' choice.
        gradient_checkpointing: compute activations anew in the backward pass while the model is trained (train
            mode); locating and editing run in eval mode and keep them.

    Raises:
        FileNotFoundError: no such model, see `check_model`.
        ValueError: an unknown device_map, a text-only model, an unknown family, a damaged file, or weights that do
            not fit the architecture (names are given).
    """
    if device_map not in DEVICE_MAPS:
        raise ValueError(f"device_map {device_map!r} is not one of {', '.join(DEVICE_MAPS)}")
    _start_threads()
    check_model(folder, revision)
    options = {"attn_implementation": attention} if attention else {}
    if device_map == "auto":
        options["device_map"] = "auto"
    model = _weights(local_folder(folder, revision), dtype=getattr(torch, dtype), **options)
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.eval().requires_grad_(False)
    if device_map == "offload":
        # attention modules of torch's own use their output layer's weights without calling it
        own = ["MultiheadAttention"]
        return cpu_offload(model, execution_device=torch.device(device), preload_module_classes=own)
    return model if device_map == "auto" else model.to(device)


def _start_threads() -> None:
    """Start torch's threads from this one, before transformers' loading threads use torch.

    Where those come first, as in a notebook's kernel, OpenMP counts more threads than cores from then on and puts
    them to sleep at every operation's end: twice the time. Threads flush denormals if set before they start.
    """
    torch.set_flush_denormal(True)
    torch.ones(2**18).relu()  # large enough to be shared between threads


def _weights(source: Path, **options) -> nn.Module:
    """The model with its weights; ValueError if any of them is missing, superfluous or of another shape."""
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except OSError as error:
        raise FileNotFoundError(f"the weights of {source} cannot be read: {error}") from None
    except SafetensorError as error:
        raise ValueError(f"the weights of {source} are damaged ({error}): fetch or copy them again") from None
    shapes = [
        f"{name} {tuple(found)} for {tuple(wanted)}" for name, found, wanted in report["mismatched_keys"]
    ]
    wrong = {"missing": sorted(report["missing_keys"]), "unexpected": sorted(report["unexpected_keys"])}
    wrong |= {"of another shape": sorted(shapes)}
    told = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in wrong.items() if names]
    if told:
        raise ValueError(
            f"the weights of {source} do not fit {type(model).__name__}: {'; '.join(told)}. The checkpoint may come "
            f"from another transformers version or another model: save it anew with the version it was made with"
        )
    return model


def is_dispatched(model: nn.Module) -> bool:
    """Whether accelerate moves the model's weights or inputs between devices (several GPUs, CPU offload)."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def input_device(model: nn.Module) -> torch.device | int | str:
    """Where a batch for the model goes: where its word embeddings are computed."""
    embeddings = model.get_input_embeddings()
    for hook in _hooks(embeddings):
        if getattr(hook, "execution_device", None) is not None:
            return hook.execution_device
    return embeddings.weight.device


def stored(model: nn.Module, name: str) -> Tensor:
    """A parameter's values where they are kept: for weights that accelerate has offloaded, in CPU memory.

    Raises:
        AttributeError: the model has no such parameter.
        ValueError: it has no values (a model on the meta device).
    """
    parameter = model.get_parameter(name)
    if not parameter.is_meta:
        return parameter
    parts = name.split(".")
    for cut in range(len(parts) - 1, -1, -1):  # the hook sits at the parameter's module, or at one around it
        for hook in _hooks(model.get_submodule(".".join(parts[:cut]))):
            if getattr(hook, "weights_map", None) is not None:
                return hook.weights_map[".".join(parts[cut:])]
    raise ValueError(f"{name} has a shape and no values: the model is on the meta device; load it")


def _hooks(module: nn.Module) -> list:
    """The accelerate hooks of one module."""
    hook = getattr(module, "_hf_hook", None)
    return getattr(hook, "hooks", [] if hook is None else [hook])


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
    for name, values in sorted(_own_parameters(model)):
        flat = values.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 1024)].float().cpu().numpy()
        digest.update(f"{name}{tuple(values.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def _own_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter once, under its first name: tied ones share their memory, offloaded or not."""
    seen = set()
    for name, _ in model.named_parameters(remove_duplicate=False):
        values = stored(model, name)
        if values.data_ptr() not in seen:
            seen.add(values.data_ptr())
            yield name, values


def save_model(model: nn.Module, processor, folder: str | Path) -> Path:
    """A plain transformers folder (weights, processor), whole or not at all.

    Raises:
        ValueError: there is not enough room on the disk; nothing is written then.
    """
    check_space(folder, sum(p.numel() * p.element_size() for p in model.parameters()))
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
    return Path(folder)


def check_space(path: str | Path, n_bytes: int, spare: int = 64 * 2**20) -> None:
    """ValueError if the disk that will hold `path` has less room than n_bytes and some spare.

    What stands at `path` already does not count as room: it is replaced only when the new one is whole.
    """
    place = Path(path).resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < n_bytes + spare:
        raise ValueError(
            f"{path} needs {(n_bytes + spare) / 2**30:.2f} GiB, the disk has {free / 2**30:.2f} GiB free: "
            "make room, or give a folder on another disk"
        )


def checksums(folder: str | Path) -> str:
    """The text of checksums.json for a folder: {file name: sha256}."""
    files = sorted(p for p in Path(folder).iterdir() if p.is_file() and p.name != "checksums.json")
    return json.dumps({path.name: sha256(path) for path in files}, indent=1) + "\n"
