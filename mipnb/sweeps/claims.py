"""Claims: of several workers, on one machine or many, exactly one works on a thing; a dead one's claim is taken over.

A claim is a file `<thing>.<generation>.json` on the shared folder that names its holder and is touched while the holder
lives. Whoever takes it over creates the next generation, which succeeds for one worker only, whatever others saw before.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

import psutil

from mipnb.artefacts import read_json, write_json

__all__ = ["BEAT", "STALE", "Claim", "claim", "holder"]

#: seconds between two signs of life, and without one after which a holder elsewhere counts as dead
BEAT, STALE = 5.0, 90.0


class Claim:
    """A thing held by this process until `release`; a thread gives signs of life.

    Attributes:
        path: the claim's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._live, daemon=True, name=f"claim {path.name}")
        self._beat.start()

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:  # a network folder that is away for a moment; if it lasts, the claim lapses
                continue

    def held(self) -> bool:
        """Whether nobody has taken it over."""
        return _newest(self.path.parent, _thing(self.path)) == self.path

    def release(self) -> None:
        """Lets go; the file stays, so that its number is never given twice."""
        self._over.set()
        self._beat.join()
        if self.held():
            write_json(self.path, {})

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def claim(folder: str | Path, thing: str) -> Claim | None:
    """Takes a thing that nobody holds, or whose holder is dead; None if another worker holds it.

    Args:
        folder: of the claims; made if need be. All workers see it.
        thing: a plain file name without dots.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    newest = _newest(folder, thing)
    if newest is not None and holder(newest):
        return None
    mine = folder / f"{thing}.{_generation(newest) + 1 if newest else 0}.json"
    draft = folder / f".draft-{uuid.uuid4().hex}"
    draft.write_text(json.dumps(_self()), encoding="utf-8")
    try:
        os.link(draft, mine)  # with its content and only if there is none: the one step that decides
    except FileExistsError:
        return None
    finally:
        draft.unlink()
    return Claim(mine) if _newest(folder, thing) == mine else None


def holder(path: Path) -> dict[str, Any] | None:
    """Who holds a claim, None if it was released or its holder is dead."""
    try:
        who = read_json(path)
    except (OSError, ValueError):  # damaged, or a file system that shows the name before the content
        who = {"host": "", "job": ""}
    if not who:
        return None
    if who["host"] == _host():
        return who if _lives(who) else None
    if who["job"] and who["job"] == _job():  # this very job, before it was queued again
        return None
    return who if _now(path.parent) - path.stat().st_mtime < STALE else None


def _lives(who: dict[str, Any]) -> bool:
    """Whether a process of this machine is still the one that it was."""
    try:
        process = psutil.Process(who["pid"])
        return abs(process.create_time() - who["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _self() -> dict[str, Any]:
    started = psutil.Process().create_time()
    return {"host": _host(), "pid": os.getpid(), "started": started, "job": _job()}


def _host() -> str:
    """This machine, and the container if there is one: where process numbers mean the same."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(space) if space.exists() else ''}".strip()


def _job() -> str:
    """The Slurm job that this process belongs to, empty without."""
    return os.environ.get("SLURM_JOB_ID", "")


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system: machines' own may differ."""
    probe = folder / f".now-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _thing(path: Path) -> str:
    return path.name.split(".")[0]


def _generation(path: Path) -> int:
    return int(path.name.split(".")[1])


def _newest(folder: Path, thing: str) -> Path | None:
    """The file of the latest generation."""
    return max(folder.glob(f"{thing}.*.json"), key=_generation, default=None)
