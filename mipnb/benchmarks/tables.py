"""Parquet files of a benchmark folder: which configuration each belongs to, and their rows one by one.

Three layouts are read: a hub snapshot (`CONFIG/train-00000-of-00002.parquet`), the same below `data/`, and loose files
(`CONFIG.parquet`, `CONFIG-00000-of-00001.parquet`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mipnb.artefacts import under_root

_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_LOOSE = re.compile(r"(-train)?(-\d+-of-\d+)?$")
#: rows in memory at a time; a row may hold a picture of a megabyte
_ROWS = 64


class Row(NamedTuple):
    """One row of a table: its fields, its file, and its number in that file, counted from 0."""

    fields: dict[str, Any]
    file: Path
    number: int


class Inspected(NamedTuple):
    """What a check needs to know of one row.

    Attributes:
        split: the configuration, or in a user's own table the set.
        file: where it stands.
        number: row of the file, counted from 0.
        person_id: whose it is; "?" if that cannot be told.
        images: its encoded pictures.
        problem: what is wrong with it; "" if nothing.
        once: whether a person may have only one such row in the split.
    """

    split: str
    file: Path
    number: int
    person_id: str
    images: tuple[bytes | None, ...] = ()
    problem: str = ""
    once: bool = False


def configurations(root: str | Path) -> dict[str, list[Path]]:
    """Configuration -> its parquet files in order, for every configuration found."""
    folder = under_root(root)
    files = [
        file for pattern in ("*.parquet", "*/*.parquet", "data/*/*.parquet") for file in folder.glob(pattern)
    ]
    found: dict[str, list[Path]] = {}
    for file in sorted(files):
        loose = file.parent == folder or file.parent == folder / "data"
        found.setdefault(_LOOSE.sub("", file.stem) if loose else file.parent.name, []).append(file)
    return found


def names(root: str | Path) -> list[str]:
    """Names of all configurations and sub-folders, sorted; FileNotFoundError if there is no such folder."""
    folder = under_root(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: give the folder of a benchmark")
    return sorted({*configurations(folder), *(path.name for path in folder.iterdir() if path.is_dir())})


def read_rows(
    root: str | Path, split: str, known: Collection[str] = (), columns: Collection[str] | None = None
) -> Iterator[Row]:
    """The rows of a configuration, all its shards, in the files' order.

    Args:
        root: the benchmark.
        split: the configuration.
        known: the columns it may have; empty: any. Columns that start with "__" (an index) are passed over.
        columns: read only those of these that are there.

    Raises:
        FileNotFoundError: no such configuration, or one of its shards is missing.
        ValueError: a file is no parquet file or has an unknown column; the message names file and column.
    """
    found = configurations(root)
    if split not in found:
        raise FileNotFoundError(
            f"no parquet files in {under_root(root) / split}; configurations found: {sorted(found)}"
        )
    _refuse_missing_shards(found[split])
    for file in found[split]:
        yield from _file_rows(file, known, columns)


def _refuse_missing_shards(files: list[Path]) -> None:
    shards = [(file, *map(int, match.groups())) for file in files if (match := _SHARD.search(file.stem))]
    for file, _, count in shards:
        missing = set(range(count)) - {index for other, index, of in shards if of == count}
        if missing:
            raise FileNotFoundError(
                f"{file.parent} lacks shards {sorted(missing)} of {count} beside {file.name}; fetch them too"
            )


def _file_rows(file: Path, known: Collection[str], columns: Collection[str] | None) -> Iterator[Row]:
    table = open_table(file)
    there = [name for name in table.schema_arrow.names if not name.startswith("__")]
    if known and (unknown := sorted(set(there) - set(known))):
        raise ValueError(f"{file} has unknown columns {unknown}; expected some of {sorted(known)}")
    wanted = [name for name in there if columns is None or name in columns]
    number = 0
    for batch in table.iter_batches(batch_size=_ROWS, columns=wanted):
        for fields in batch.to_pylist():
            yield Row(fields, file, number)
            number += 1


def open_table(file: Path) -> pq.ParquetFile:
    """A parquet file, opened; ValueError names one that is none (a page saved in its place, a Git LFS pointer)."""
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} is not a parquet file ({error}); fetch it again") from None


def field(row: dict[str, Any], name: str, where: Path, inside: str = "", identity: str = "ID") -> Any:
    """A row's field; ValueError names file, row and field if it is missing or null."""
    value = row.get(name)
    if value is None:
        person = row.get(identity, "?")
        raise ValueError(f"{where}: row {person!r} lacks field {inside + name!r}; found {sorted(row)}")
    return value


def known_ratio(root: str | Path, ratio: int, found: Collection[int]) -> int:
    """The ratio; ValueError lists those found if it is not among them."""
    if ratio not in found:
        raise ValueError(f"forget_ratio {ratio} does not exist in {root}; it has {sorted(found)} (percent)")
    return ratio
