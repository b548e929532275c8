"""Where a model comes from: a local folder or the hub; and what is refused before any weight is loaded."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from mipnb.artefacts import read_json, sha256, under_root
from mipnb.families import BRANCHES, FAMILIES, family
from mipnb.networks import ffns

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
#: what a model folder consists of; hubs keep the same weights in other formats beside them
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def model_source(name: str | Path) -> str:
    """The folder's path, or the hub id, that a name stands for.

    A folder that exists is meant, absolute or counted from the project's root. Otherwise `owner/name` is a hub id,
    unless `owner` is a folder of the project, in which no such model is.

    Raises:
        FileNotFoundError: neither; the message says what was looked for.
    """
    folder = under_root(name)
    if folder.is_dir():
        return str(folder)
    if _HUB_ID.fullmatch(str(name)) and not folder.parent.is_dir():
        return str(name)
    raise FileNotFoundError(
        f"there is no folder {folder}, and {str(name)!r} is no hub id (owner/name): give a model folder, or a hub id"
    )


def read_config(name: str | Path, revision: str = "") -> PreTrainedConfig:
    """The configuration of a model that mipnb can work with.

    Args:
        name: a local folder, or a hub id.
        revision: commit, tag or branch of a hub model; "" for its default.

    Raises:
        FileNotFoundError: no folder, no model in it, or a hub model that cannot be had (gated, unknown, offline).
        ValueError: a text-only model, or a family without a record.
    """
    source = model_source(name)
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        found = sorted(path.name for path in Path(source).iterdir())[:5]
        raise FileNotFoundError(
            f"there is no model in {source} (no config.json; it holds {found or 'nothing'}); give another folder, "
            "or make the model by `-p retrain true`"
        )
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main")
    except OSError as error:
        raise _unavailable(source, revision, error) from None
    if config.model_type not in FAMILIES and not hasattr(config, "vision_config"):
        raise ValueError(
            f"{source} is a text-only model (model_type {config.model_type!r}, no vision_config): "
            f"expected a vision-language model of a family in {', '.join(sorted(FAMILIES))}"
        )
    family(config.model_type)
    return config


def local_folder(name: str | Path, revision: str = "") -> Path:
    """The folder that a model's files are in; a hub model's are fetched first, once, and kept in the hub's cache.

    Args:
        name: a local folder, or a hub id.
        revision: commit, tag or branch of a hub model; "" for its default. The folder is that commit's own.

    Raises:
        FileNotFoundError: no such folder, or a hub model that cannot be had (gated, unknown, offline).
    """
    source = model_source(name)
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(source, revision=revision or None, allow_patterns=_FILES))
    except (OSError, HfHubHTTPError) as error:
        raise _unavailable(source, revision, error) from None


def _unavailable(source: str, revision: str, error: Exception) -> FileNotFoundError:
    """What to say, and to do, about a hub model that could not be got."""
    causes = (error, error.__cause__, error.__context__)
    gated = any(isinstance(cause, GatedRepoError) for cause in causes)
    reason = (
        "it is gated: accept its licence on the hub and log in with `hf auth login`"
        if gated
        else "no such model is there (check the name), it is private, or there is no connection and it is not cached"
    )
    which = f"{source} (revision {revision})" if revision else source
    return FileNotFoundError(
        f"the hub model {which} cannot be had: {reason}. Fetch it where there is a connection with "
        f"`hf download {source}`, or give a local folder. The hub's client says: {str(error).strip().splitlines()[0]}"
    )


def check_model(name: str | Path, revision: str = "") -> PreTrainedConfig:
    """All that can be known to be wrong with a model without loading it; returns its configuration.

    Raises:
        FileNotFoundError, ValueError: see `read_config`; a file of a folder with checksums is missing or damaged.
    """
    config = read_config(name, revision)
    source = model_source(name)
    if Path(source).is_dir():
        verify_checksums(source)
    return config


def empty_model(config: PreTrainedConfig) -> nn.Module:
    """A model of a configuration on the meta device: all shapes, no values, no memory."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def ffn_sizes(folder: str | Path, revision: str = "") -> dict[str, tuple[int, int]]:
    """(layers, neurons a layer) of each branch, from the configuration and an empty model; loads no weights."""
    model = empty_model(read_config(folder, revision))
    found = {branch: ffns(model, branch) for branch in BRANCHES}
    return {branch: (len(items), items[0].n_neurons) for branch, items in found.items()}


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
                f"{folder / name} is damaged: sha256 {found}, expected {expected}. Copy it anew from where it comes "
                f"from (a file of this repository: `git checkout -- {folder}`), or remake the pocket models with "
                "`mipnb run -p retrain True`."
            )
