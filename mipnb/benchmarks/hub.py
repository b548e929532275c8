"""A benchmark's folder: as given, or a data set of the Hugging Face hub at a pinned revision."""

from __future__ import annotations

import re
from pathlib import Path

from mipnb.artefacts import under_root

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ["*.parquet", "README.md"]


def benchmark_folder(name: str, revision: str = "") -> Path:
    """Where a benchmark lies on this machine; a data set of the hub is fetched first, unless it is already here.

    Args:
        name: a folder (relative: from the project's root), or a data set's name on the hub, "owner/name".
        revision: the commit of the data set, 40 hexadecimal digits; empty for a folder.

    Raises:
        FileNotFoundError: no such folder; or the data set is not here and cannot be fetched (offline, gated, missing).
        ValueError: no revision, or one that is no commit, for a data set of the hub.
    """
    folder = under_root(name)
    if folder.is_dir():
        return folder
    if not revision or not _HUB_NAME.fullmatch(name):
        hub = (
            " (a data set of the hub needs its commit as the revision, too)"
            if _HUB_NAME.fullmatch(name)
            else ""
        )
        raise FileNotFoundError(f"there is no folder {folder}{hub}")
    if not _COMMIT.fullmatch(revision):
        raise ValueError(
            f"revision {revision!r} of {name}: expected a commit, 40 hexadecimal digits, that cannot move"
        )
    return _snapshot(name, revision)


def _snapshot(name: str, revision: str) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    wanted = {"repo_type": "dataset", "revision": revision, "allow_patterns": _WANTED}
    try:
        return Path(huggingface_hub.snapshot_download(name, **wanted))
    except errors.GatedRepoError as error:
        advice = "accept its terms on its page, then log in by `hf auth login`"
        raise FileNotFoundError(f"data set {name} is gated: {advice} ({_first_line(error)})") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        advice = "check the name and the revision, and whether it is private"
        raise FileNotFoundError(
            f"the hub has no data set {name} at {revision}: {advice} ({_first_line(error)})"
        ) from None
    except (
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.HfHubHTTPError,
        OSError,
    ) as error:
        advice = "fetch it where there is a connection, or give the folder of a snapshot as benchmark_dir"
        raise FileNotFoundError(
            f"data set {name} at {revision} is not on this machine and the hub cannot be reached: {advice} "
            f"({_first_line(error)})"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def benchmark_name(root: str | Path) -> str:
    """What to call a benchmark in tables: its folder's name, or for a snapshot of the hub the data set's."""
    folder = under_root(root).resolve()
    is_snapshot = folder.parent.name == "snapshots" and "--" in folder.parents[1].name
    return folder.parents[1].name.split("--")[-1] if is_snapshot else folder.name
