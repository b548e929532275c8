"""The documentation's sources: every public name has its entry, and every message that is raised can be found."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

import mipnb
from mipnb.artefacts import project_root

ROOT = project_root()
HOLE = "{}"


def raised() -> Iterator[tuple[str, str]]:
    """Module and message of every `raise` and warning in the package, {} where a value comes in."""
    for path in sorted((ROOT / "mipnb").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            call = node.exc if isinstance(node, ast.Raise) else node
            told = isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _is_warn(node))
            if told and isinstance(call, ast.Call) and call.args:
                found = _literal(call.args[0])
                if len(re.findall(r"[a-z]{2,}", found)) > 1:  # others only hand on a message
                    yield path.name, found


def _is_warn(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "warnings.warn"


def _literal(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(value) if isinstance(value, ast.Constant) else HOLE for value in node.values)
    return ""


def quoted() -> list[str]:
    """The words by which the page lists messages: the first column of its tables."""
    rows = re.findall(r"^\| (`.+?) \| ", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    return [words for row in rows for words in re.split(r"`, `", row[1:-1])]


@pytest.mark.parametrize("message", [f"{name}: {text}" for name, text in raised()])
def test_every_message_is_on_the_page_of_errors(message: str):
    assert any(words in message for words in quoted()), "docs/errors.md has no words of this message"


def test_the_page_lists_no_message_that_nothing_raises():
    sources = "".join(path.read_text() for path in (ROOT / "mipnb").rglob("*.py"))
    everything = "\n".join(text for _, text in raised())
    assert [words for words in quoted() if words not in everything and words not in sources] == []


def test_every_public_name_has_its_entry():
    entries = re.findall(
        r"^\.\. auto\w+:: mipnb\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert sorted(entries) == sorted(mipnb.__all__)


def test_every_notebook_page_is_listed():
    assert "../notebooks/*" in (ROOT / "docs" / "index.md").read_text()
