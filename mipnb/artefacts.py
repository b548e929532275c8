"""Files on disk: written whole or not at all, found from anywhere, missed by name."""

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "KEEP_PARTIAL",
    "PARTIAL",
    "atomic_path",
    "clear_partial",
    "project_root",
    "read_json",
    "require",
    "sha256",
    "stage_dir",
    "under_root",
    "write_json",
]

PARTIAL = ".partial"  # within a notebook's folder: results of one that is not through yet (`mipnb.partial`)
KEEP_PARTIAL = (
    "MIPNB_KEEP_PARTIAL"  # environment variable: keep them when it is through (`mipnb run --keep-partial`)
)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; moves what was written there into place if nothing was raised.

    Args:
        path: The final file or folder. An existing one is replaced.

    Yields:
        A path in the same folder with the same suffix. Nothing exists there yet: create a file or a folder.

    Raises:
        FileNotFoundError: If the block wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {path}")
        _replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(source: Path, target: Path) -> None:
    """Moves a file or folder over `target`; a folder in the way is moved aside first."""
    if target.is_dir() and not target.is_symlink():
        os.replace(target, source.parent / "replaced")
    os.replace(source, target)


def write_json(path: str | Path, value: Any) -> Path:
    """Writes JSON whole or not at all: indented, UTF-8, a final newline, keys in the order given.

    Raises:
        ValueError: If `value` holds NaN or infinity, which JSON has no word for.
        TypeError: If `value` holds something JSON cannot express.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not JSON, naming the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and make it again") from None


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes, 64 hexadecimal digits; cached while the file is unchanged."""
    status = os.stat(path)
    return _sha256(str(Path(path).resolve()), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require(path: str | Path, made_by: str) -> Path:
    """Returns `path` if it exists.

    Args:
        path: A file or folder that an earlier notebook writes.
        made_by: That notebook, e.g. `02_attribution`.

    Raises:
        FileNotFoundError: Naming what is missing, the notebook that makes it, and the command to run.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing. Notebook {made_by} makes it: run `mipnb run --only {made_by}` "
            f"(or `mipnb run` for everything up to here), with the same run_dir."
        )
    return path


def project_root() -> Path:
    """Returns the folder that holds `notebooks/` and `pyproject.toml`.

    That is the nearest such folder at or above the working directory, else the one mipnb was installed from.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return Path(__file__).resolve().parents[1]


def under_root(path: str | Path) -> Path:
    """Returns `path` made absolute: a relative one counts from the project's root."""
    return project_root() / Path(path).expanduser()


def stage_dir(run_dir: str | Path, stage: str) -> Path:
    """Returns the folder of one notebook within a run, made if need be.

    Args:
        run_dir: The run, e.g. `runs/pocket`; a relative one counts from the project's root.
        stage: The notebook's name, e.g. `02_attribution`.
    """
    folder = under_root(run_dir) / stage
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear_partial(stage: str | Path) -> None:
    """Removes what `mipnb.partial` kept in a notebook's folder: the notebook is through.

    With `KEEP_PARTIAL` in the environment the pieces stay, each in its result's folder, and only the files beside these
    folders go, which processes shared while at work.
    """
    folder = Path(stage) / PARTIAL
    if not os.environ.get(KEEP_PARTIAL):
        return shutil.rmtree(folder, ignore_errors=True)
    for shared in (path for path in folder.glob("*") if path.is_file()):
        shared.unlink()
