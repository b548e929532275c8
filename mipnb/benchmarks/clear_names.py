"""Who a row of CLEAR is about: configurations by their zero-padded names, and people by caption and by text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mipnb.benchmarks.tables import Row, configurations, field, names, read_rows

_TEXT = ("caption", "name", "question", "answer")


def forget_name(ratio: int) -> str:
    """CLEAR's name of a forget configuration: forget05+tofu for 5 percent."""
    return f"forget{ratio:02d}+tofu"


def retain_name(ratio: int) -> str:
    """CLEAR's name of a retain configuration: retain95+tofu for a forget ratio of 5 percent."""
    return f"retain{100 - ratio:02d}+tofu"


def forget_ratios(root: str | Path) -> list[int]:
    """The forget ratios in percent, ascending."""
    return sorted(int(name[6:8]) for name in names(root) if re.fullmatch(r"forget\d\d\+tofu", name))


def is_text(row: Row) -> bool:
    """Whether a row is one of TOFU's: it has a question; an image row has a caption in its place."""
    return row.fields.get("question") is not None


@dataclass(frozen=True)
class Names:
    """Names by caption (image rows) and by question and answer (text rows)."""

    captions: dict[str, str]
    texts: dict[tuple[str, str], str]

    def of(self, row: Row) -> str:
        """The name of the person that a row is about.

        Raises:
            ValueError: nothing tells; the message gives file and row.
        """
        fields = row.fields
        if fields.get("name"):
            return fields["name"].strip()
        if is_text(row):
            key = fields["question"], field(fields, "answer", row.file, identity="question")
            return self._known(self.texts, key, row)
        if not fields.get("caption"):
            found = sorted(name for name, value in fields.items() if value is not None)
            raise ValueError(
                f"{row.file}: row {row.number} lacks field 'caption' (image row) or 'question' (text row); found {found}"
            )
        return self._known(self.captions, fields["caption"], row)

    @staticmethod
    def _known(known: dict, key: object, row: Row) -> str:
        if key not in known:
            raise ValueError(
                f"{row.file}: row {row.number}: nothing tells whose it is ({key!r}); the configuration 'full' names "
                "every caption's person: fetch it too"
            )
        return known[key]


def find_names(root: str | Path) -> Names:
    """Names of every caption and every text row of the benchmark."""
    captions = _caption_names(root)
    return Names(captions, _text_names(root, captions))


def _caption_names(root: str | Path) -> dict[str, str]:
    """Caption -> name, from the configurations that have both; a caption of two people names nobody."""
    found: dict[str, set[str]] = {}
    for split in configurations(root):
        if split == "full" or split.endswith("_perturbed"):
            for row in read_rows(root, split, columns=("caption", "name")):
                if row.fields.get("caption") and row.fields.get("name"):
                    found.setdefault(row.fields["caption"], set()).add(row.fields["name"].strip())
    return {caption: people.pop() for caption, people in found.items() if len(people) == 1}


def _text_names(root: str | Path, captions: dict[str, str]) -> dict[tuple[str, str], str]:
    """(question, answer) -> name: the person named in either, else the one of the row before.

    The smallest forget set comes first, and each next set is searched for people of no set before: a text row can never
    be taken for a person outside its own set.
    """
    there, ratios = configurations(root), forget_ratios(root)
    splits = (
        [forget_name(ratio) for ratio in ratios]
        + [retain_name(ratio) for ratio in ratios[::-1]]
        + ["full+tofu"]
    )
    known: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for split in (name for name in splits if name in there):
        rows = list(read_rows(root, split, columns=_TEXT))
        people = [name for name in _image_people(rows, captions) if name not in taken]
        _name_texts([row for row in rows if is_text(row)], people, known)
        taken.update(people)
    return known


def _image_people(rows: list[Row], captions: dict[str, str]) -> list[str]:
    named = (row.fields.get("name") or captions.get(row.fields.get("caption"), "") for row in rows)
    return list(dict.fromkeys(name.strip() for name in named if name))


def _name_texts(rows: list[Row], people: list[str], known: dict[tuple[str, str], str]) -> None:
    """Adds to `known` the rows that are new, each by the longest name that it holds or else the last one found."""
    last, longest = people[0] if people else "", sorted(people, key=len, reverse=True)
    for row in rows:
        key = row.fields["question"], row.fields.get("answer")
        if key not in known and people:
            last = next((name for name in longest if _holds(f"{key[0]} {key[1]}", name)), last)
            known[key] = last


def _holds(text: str, name: str) -> bool:
    """Whether a text has a name as whole words: "Ana Li" is not in "Ana Lima"."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None
