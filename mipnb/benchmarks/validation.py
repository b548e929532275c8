"""Is a benchmark folder fit to be used? Every row looked at once, every fault with file, row and ID."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mipnb.artefacts import under_root
from mipnb.benchmarks import benchmark_kind, clear, custom, load_training, reader_of
from mipnb.benchmarks.pictures import picture_problem
from mipnb.benchmarks.tables import Inspected, configurations, names

SHOWN = 50


@dataclass
class Report:
    """What a check of a folder found.

    Attributes:
        folder: the benchmark.
        kind: mllmu, clear or custom.
        rows: split -> number of rows.
        errors: what makes results wrong or stops a run, one line each.
        warnings: what a user should know.
    """

    folder: Path
    kind: str
    rows: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The report as lines of text; at most `SHOWN` errors and warnings, the rest counted."""
        width = max(map(len, self.rows), default=0)
        lines = [f"{self.folder}: kind {self.kind}; rows are counted from 0"]
        lines += [f"  {split:<{width}}  {count:>6} rows" for split, count in self.rows.items()]
        for name, found in (("error", self.errors), ("warning", self.warnings)):
            lines += [f"{name}: {line}" for line in found[:SHOWN]]
            lines += [f"{name}: {len(found) - SHOWN} more like these"] * (len(found) > SHOWN)
        return "\n".join([*lines, f"{len(self.errors)} errors, {len(self.warnings)} warnings"])


@dataclass
class _Seen:
    """Per split: whose rows, and which pictures, each with the first row that has it; and the splits not read to their end."""

    people: dict[str, dict[str, Inspected]] = field(default_factory=dict)
    pictures: dict[str, dict[bytes, Inspected]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)


def check_data(
    root: str | Path, ratio: int | None = None, training: str | Path = "", decode: bool = True
) -> Report:
    """Checks a benchmark's folder.

    Args:
        root: the benchmark.
        ratio: look only at what a run at this forget ratio reads, and demand all of it; None: everything that is there.
        training: the folder of the training rows where they are a data set of their own; with `ratio`.
        decode: decode every picture whole; else look at headers alone.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: nothing in the folder is a benchmark.
    """
    report = Report(under_root(root), benchmark_kind(root))
    splits = _found_splits(root)
    if not splits:
        raise ValueError(
            f"{report.folder} is no benchmark: expected MLLMU-Bench's folders (Full_Set, forget_5, ...), CLEAR's "
            f"(full, forget05+tofu, ...) or a table {' or '.join(custom.TABLES)}; found {names(root) or 'nothing'}"
        )
    seen = _Seen()
    if ratio is None:
        _read_splits(report, seen, root, splits, decode)
    else:
        _read_splits(report, seen, root, _wanted(report, root, ratio, splits), decode)
        source = training or root
        extra = [
            name for name in reader_of(source).training_splits(source) if training or name not in report.rows
        ]
        _read_splits(report, seen, source, extra, decode)
    _compare_sets(report, seen, root, ratio)
    if report.kind == "clear" and ratio is None and not report.errors:
        report.warnings += [_line(row, row.problem) for row in clear.unmatched(root)]
    if ratio is not None and not report.errors:
        _check_training(report, seen, root, training, ratio)
    return report


def _found_splits(root: str | Path) -> list[str]:
    names(root)  # raises where there is no folder
    return (
        custom.found_sets(root) or ["forget"]
        if benchmark_kind(root) == "custom"
        else list(configurations(root))
    )


def _wanted(report: Report, root: str | Path, ratio: int, splits: Collection[str]) -> list[str]:
    needed = reader_of(root).needed(root, ratio)
    report.errors += [
        f"{report.folder} has no configuration {name}, which forget_ratio {ratio} needs; found {sorted(splits)}"
        for name in needed
        if name not in splits
    ]
    return [name for name in needed if name in splits]


def _read_splits(report: Report, seen: _Seen, root: str | Path, splits: Iterable[str], decode: bool) -> None:
    splits = list(splits)
    report.rows.update({split: 0 for split in splits if split not in report.rows})
    for group in [splits] if reader_of(root) is custom else [[split] for split in splits]:
        try:
            for row in reader_of(root).inspect(root, group):
                report.rows[row.split] = report.rows.get(row.split, 0) + 1
                _look_at(report, seen, row, decode)
        except (ValueError, FileNotFoundError) as error:
            report.errors.append(str(error))
            seen.unread.update(group)


def _look_at(report: Report, seen: _Seen, row: Inspected, decode: bool) -> None:
    """Notes one row's faults: fields, pictures, an ID that was there before."""
    if row.problem:
        report.errors.append(_line(row, row.problem))
    before = seen.people.setdefault(row.split, {}).setdefault(row.person_id, row)
    if row.once and before is not row:
        report.errors.append(
            _line(row, f"ID {row.person_id!r} stands in row {before.number} of {before.file} already")
        )
    pictures = seen.pictures.setdefault(row.split, {})
    for image in row.images:
        if problem := picture_problem(image, decode):
            report.errors.append(_line(row, problem))
        elif image:
            pictures.setdefault(hashlib.sha256(image).digest(), row)


def _line(row: Inspected, what: str) -> str:
    where = f"{row.file}: row {row.number}, {row.person_id}: "
    return where + what.removeprefix(f"{row.file}: ")


def _compare_sets(report: Report, seen: _Seen, root: str | Path, ratio: int | None) -> None:
    """Notes empty sets, and people and pictures that are both forgotten and kept."""
    try:
        pairs = [pair for pair in reader_of(root).pairs(root) if ratio in (None, pair[0])]
    except ValueError as error:
        report.errors.append(str(error))
        return
    for number, forget, retain in pairs:
        for split in (forget, retain):
            if split not in report.rows:
                report.errors.append(
                    f"{report.folder} has {forget} or {retain}, but not {split}: ratio {number} needs both"
                )
            elif not report.rows[split] and split not in seen.unread:
                report.errors.append(f"{report.folder}: {split} has no rows: there is nobody to {split[:6]}")
        _note_leaks(report, seen, forget, retain)
    if report.kind == "custom":  # one table, so an ID is the same person in every set
        for one, other in (
            ("forget", "test_retain"),
            ("forget", "celebrity"),
            ("forget", "holdout"),
            ("test_forget", "retain"),
        ):
            _note_leaks(report, seen, one, other)


def _note_leaks(report: Report, seen: _Seen, forget: str, retain: str) -> None:
    for what, table in (("person", seen.people), ("picture", seen.pictures)):
        kept = table.get(retain, {})
        for key, row in table.get(forget, {}).items():
            if key in kept and key != "?":
                other = kept[key]
                report.errors.append(
                    _line(row, f"the same {what} is in {forget} and in {retain} ({other.file}: row {other.number}, "
                    f"{other.person_id}); nobody can be both forgotten and kept")
                )  # fmt: skip


def _check_training(report: Report, seen: _Seen, root: str | Path, training: str | Path, ratio: int) -> None:
    """Notes people of either set whom nothing is asked about or who have no training rows, and sets without a modality."""
    if report.kind == "mllmu":
        people = {*seen.people[f"forget_{ratio}"], *seen.people[f"retain_{100 - ratio}"]}
        for split in ("Full_Set", "Test_Set"):
            if missing := sorted(people - {*seen.people.get(split, ())}):
                lacks = f"{split} lacks {len(missing)} people of both sets"
                report.errors.append(f"{report.folder}: {lacks}: {missing[:5]}")
    for name in ("forget", "retain"):
        try:
            trained = load_training(training or root, ids=reader_of(root).ids(root, ratio, name == "forget"))
        except (ValueError, FileNotFoundError) as error:
            report.errors.append(str(error))
            continue
        for modality in {"text", "image_text"} - {question.modality for question in trained}:
            lacks = f"no training question {'without' if modality == 'text' else 'with'} a picture"
            report.errors.append(
                f"{under_root(training or root)}: {lacks} is about people to {name}; both are needed"
            )
