"""A run opened for exploring: its vanilla model, the questions it was located on with their scores, and its edits."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from mipnb.artefacts import read_json, require, under_root
from mipnb.benchmarks import Question, draw_questions, forget_ids, load_people, load_training, retain_ids
from mipnb.benchmarks.questions import held_value
from mipnb.edits import Edit
from mipnb.locating import PAIRS, of_modality, question_names
from mipnb.models import load_model, load_processor, run_model
from mipnb.scores import Scores

GROUPS = ("forget", "retain")
LOCATED, DEFAULT = "02_attribution", "runs/pocket"
_last: list[str] = []


@dataclass(frozen=True, eq=False)
class Opened:
    """What exploring needs of a run.

    Attributes:
        folder: the run's.
        settings: parameters that it was located with.
        model, processor: vanilla; whoever hooks or edits the model holds `lock` meanwhile.
        names: person_id -> name.
        asked: (set, modality) -> name of a question -> question, as located; sets are "forget" and "retain".
        scores: (set, pair) -> scores, pairs as in `locating.PAIRS`.
        edits: name -> edit, of every notebook of the run that has an `edits/`.
    """

    folder: Path
    settings: Mapping[str, Any]
    model: nn.Module
    processor: Any
    names: Mapping[str, str]
    asked: Mapping[tuple[str, str], Mapping[str, Question]]
    scores: Mapping[tuple[str, str], Scores]
    edits: Mapping[str, Edit]
    lock: threading.RLock = field(default_factory=threading.RLock)

    def group_of(self, name: str, modality: str) -> str:
        """The set that a located question belongs to; ValueError for an unknown one."""
        for group in GROUPS:
            if name in self.asked[group, modality]:
                return group
        raise ValueError(f"no {modality} question {name!r} was located in {self.folder.name}")


def open_run(run_dir: str | Path | None = None) -> Opened:
    """Open a run; a second call gives the same object while the run is unchanged.

    Args:
        run_dir: the run's folder, from the project's root; None: the one opened last in this process, else the one whose
            executed notebook this is, else runs/pocket.

    Raises:
        FileNotFoundError: the run lacks what an earlier notebook makes; it is named.
        ValueError: the benchmark is no longer the one that was located on.
    """
    folder = under_root(run_dir or (_last[-1] if _last else _around()))
    require(folder / LOCATED / "record.json", made_by=LOCATED)
    stamp = tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.glob("*/record.json")))
    opened = _open(folder, stamp)
    _last[:] = [str(folder)]
    return opened


def _around() -> str | Path:
    """The run that a kernel started in one of its notebooks' folders belongs to; elsewhere runs/pocket."""
    return Path.cwd().parent if (Path.cwd().parent / LOCATED).is_dir() else DEFAULT


@functools.lru_cache(maxsize=2)
def _open(folder: Path, stamp: tuple) -> Opened:
    settings = read_json(require(folder / LOCATED / "params.json", made_by=LOCATED))
    place = run_model(folder / "01_vanilla_model")
    model = load_model(place, settings["dtype"], settings["device"], attention=settings["attention"])
    people = {
        person.person_id: person.biography for person in load_people(settings["benchmark_dir"], "Full_Set")
    }
    names = {person: biography.get("Name", person) for person, biography in people.items()}
    scores = {
        (group, pair): Scores.load(
            require(folder / LOCATED / "scores" / f"{group}_{pair}.safetensors", LOCATED)
        )
        for group in GROUPS
        for pair in PAIRS
    }
    asked = _asked(settings, people)
    for (group, pair), found in scores.items():
        if tuple(asked[group, PAIRS[pair][1]]) != found.names:
            raise ValueError(
                f"{folder.name}: {group}_{pair} was located on other questions than the benchmark has now: "
                f"run `mipnb run --from 02`"
            )
    return Opened(folder, settings, model, load_processor(place), names, asked, scores, run_edits(folder))


def _asked(
    settings: Mapping[str, Any], people: Mapping[str, Mapping[str, str]]
) -> dict[tuple[str, str], dict[str, Question]]:
    """The questions that 02_attribution drew, each with the value of the biography that its answer holds."""
    root, ratio = under_root(settings["benchmark_dir"]), settings["forget_ratio"]
    rows = under_root(settings["training_dir"] or settings["benchmark_dir"])
    ids = {"forget": forget_ids(root, ratio), "retain": retain_ids(root, ratio)}
    found = {}
    for group in GROUPS:
        drawn = draw_questions(
            load_training(rows, ids=ids[group]), settings[f"n_locate_{group}"], settings["seed"]
        )
        for modality in ("text", "image_text"):
            some = of_modality(drawn, modality)
            valued = [
                q if q.value else replace(q, value=held_value(q.answer, people[q.person_id])) for q in some
            ]
            found[group, modality] = dict(zip(question_names(some), valued, strict=True))
    return found


def run_edits(folder: str | Path) -> dict[str, Edit]:
    """Every edit of a run by its file's name, those of `04_editing` first; another notebook's behind its number."""
    found = {}
    for path in sorted(Path(folder).glob("[0-9]*/edits/*.safetensors")):
        stage = path.parent.parent.name
        found[path.stem if stage == "04_editing" else f"{stage[:2]} {path.stem}"] = Edit.load(path)
    return dict(sorted(found.items(), key=lambda item: item[0][0].isdigit()))
