"""Notebooks that several runs of a sweep share: made once, by whoever comes first, and linked into the others' folders."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipnb.artefacts import PARTIAL, atomic_path, read_json, write_json
from mipnb.outcome import NotebookFailedError
from mipnb.params import Params
from mipnb.stages import Stage
from mipnb.state import OWN_FILES, RECORD, ingredients, outputs
from mipnb.sweeps.claims import claim
from mipnb.sweeps.plan import digest

__all__ = ["Shelf"]

_WAIT = 0.5  # seconds between two looks at a notebook that another worker is making


@dataclass(frozen=True)
class Shelf:
    """Which run of a sweep holds which finished notebook.

    Attributes:
        folder: the sweep's.
        call: of `mipnb sweep`: a notebook that failed is not tried again for other runs of the same call.
    """

    folder: Path
    call: str

    def bring(
        self, stage: Stage, params: Params, run: Path, stages: dict[str, Stage], make: Callable[[], None]
    ) -> str:
        """Has a notebook's results in a run's folder: another run's, if it was made from the same, else its own.

        Args:
            stage: the notebook; what it reads is in the run's folder.
            params: of the run.
            run: its folder, below the sweep's.
            stages: all stages by name.
            make: runs the notebook there.

        Returns:
            The run it comes from.

        Raises:
            NotebookFailedError: it failed, here or in another run of this call.
        """
        made_from = json.loads(json.dumps(ingredients(stage, params, run, stages)))
        key = f"{stage.name}-{digest(made_from)[:20]}"
        while True:
            if source := self._source(key, stage, made_from):
                _link(source, run / stage.name, params)
                return source.parent.name
            if taken := claim(self.folder / ".claims", key):
                with taken:
                    if not self._source(key, stage, made_from):
                        self._make(key, run, make)
                        return run.name
            else:
                time.sleep(_WAIT)

    def _source(self, key: str, stage: Stage, made_from: dict[str, Any]) -> Path | None:
        """The folder of a finished notebook that was made from the same and is whole; None if there is none."""
        entry = self._entry(key)
        if not entry:
            return None
        if error := entry.get("error"):
            if entry["call"] == self.call:
                raise NotebookFailedError(
                    f"{error}\n(in run {entry['run']}, which has the same part of the chain)"
                )
            return None
        run = self.folder / entry["run"]
        if not (run / stage.name / RECORD).is_file():
            return None
        record = read_json(run / stage.name / RECORD)
        same = all(record.get(part) == value for part, value in made_from.items())
        return run / stage.name if same and record["outputs"] == outputs(stage, run) else None

    def _make(self, key: str, run: Path, make: Callable[[], None]) -> None:
        try:
            make()
        except NotebookFailedError as error:
            write_json(self._file(key), {"run": run.name, "error": str(error), "call": self.call})
            raise
        write_json(self._file(key), {"run": run.name})

    def _file(self, key: str) -> Path:
        return self.folder / ".shelf" / f"{key}.json"

    def _entry(self, key: str) -> dict[str, Any]:
        return read_json(self._file(key)) if self._file(key).is_file() else {}


def _link(source: Path, target: Path, params: Params) -> None:
    """Puts another run's notebook folder in place, whole: artefacts as hard links, what may be written to as copies."""
    with atomic_path(target) as temporary:
        shutil.copytree(
            source, temporary, copy_function=_linked, ignore=shutil.ignore_patterns(PARTIAL, ".writing-*")
        )
        values = read_json(temporary / "params.json") | {"run_dir": params.run_dir}
        write_json(temporary / "params.json", values)
        record = read_json(temporary / RECORD)
        write_json(temporary / RECORD, record | {"shared_from": source.parent.name})


def _linked(source: str, target: str) -> None:
    if Path(source).name not in OWN_FILES:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copy2(source, target)
