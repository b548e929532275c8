"""Result objects as single safetensors files: tensors, and a JSON header that says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mipnb.artefacts import atomic_path


def save_record(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]
) -> Path:
    """Write tensors and JSON fields to one file, whole or not at all: the same bytes whenever they are the same.

    Args:
        path: the file, replaced if it exists.
        kind: what it holds, with a version, e.g. "mipnb-path-1".
        tensors: any shapes and dtypes.
        fields: values that JSON can express.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": kind, "fields": json.dumps(dict(fields), sort_keys=True, allow_nan=False)}
    with atomic_path(path) as temporary:
        save_file(whole, temporary, metadata=header)
    return Path(path)


def save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """A safetensors file whose header is sorted: safetensors itself writes metadata in any order."""
    data = save(tensors, metadata=metadata)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(
        json.loads(data[8:start]), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(memoryview(data)[start:])


def load_record(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_record` wrote: tensors and fields.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no safetensors file, or holds something else than `kind`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a file of format {kind!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}); delete it and make it again"
        ) from None
    if header.get("format") != kind:
        raise ValueError(
            f"{path} holds format {header.get('format')!r}, expected {kind!r}; was another file meant?"
        )
    return tensors, json.loads(header["fields"])
