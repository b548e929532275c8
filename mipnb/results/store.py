"""Units of work that take a while (a method trained and asked), each made once and kept whole in a folder of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mipnb.artefacts import atomic_path, write_json

__all__ = ["ITEMS", "item_name", "stored"]

ITEMS = "items"  # folder of the units within a notebook's

Tables = dict[str, pd.DataFrame]


def item_name(key: Mapping[str, Any]) -> str:
    """The folder name of a unit: 16 hexadecimal digits of its key's digest."""
    text = json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stored(folder: str | Path, key: Mapping[str, Any], make: Callable[[], Tables]) -> Tables:
    """The tables of one unit of work, made if they are not there yet.

    Args:
        folder: holds the units, each in `items/<name>` as one parquet file a table and `key.json`.
        key: all that the result depends on, as plain values: method, settings, seed, people, the model's fingerprint.
        make: makes the tables by name; a unit interrupted within it leaves nothing.

    Returns:
        The tables by name.
    """
    place = Path(folder) / ITEMS / item_name(key)
    if not place.is_dir():
        made = make()
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as temporary:
            temporary.mkdir()
            for name, table in made.items():
                table.to_parquet(temporary / f"{name}.parquet")
            write_json(temporary / "key.json", dict(key))
    return {path.stem: pd.read_parquet(path) for path in sorted(place.glob("*.parquet"))}
