"""The public interface: every name is there, typed and documented, and importing costs nothing."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import mipnb
from mipnb.artefacts import project_root
from mipnb.attribution import SEARCHES, attribute
from mipnb.ranking import AGGREGATES, RANKINGS
from mipnb.rules import ADAPTIVE, RULES

#: `load_processor` gives, and `encode`, `generate`, `locate` take, a processor of any family, as their docstrings say
ANY = {"processor"}


def functions() -> list[tuple[str, Any]]:
    """Public functions, and public methods of public classes."""
    found = []
    for name in mipnb.__all__:
        one = getattr(mipnb, name)
        if inspect.isclass(one):
            methods = [(part, getattr(one, part)) for part in vars(one) if not part.startswith("_")]
            found += [(f"{name}.{part}", method) for part, method in methods if inspect.isroutine(method)]
        else:
            found.append((name, one))
    return found


@pytest.mark.parametrize("name", mipnb.__all__)
def test_a_public_name_says_what_it_is(name: str):
    documented = inspect.getdoc(getattr(mipnb, name))
    assert documented
    assert not documented.startswith(f"{name}(")  # what a dataclass makes up for itself


@pytest.mark.parametrize(("name", "one"), functions(), ids=[name for name, _ in functions()])
def test_what_one_may_call_is_documented_and_typed(name: str, one: Any):
    assert inspect.getdoc(one)
    types = inspect.get_annotations(one.__func__ if inspect.ismethod(one) else one)
    assert "return" in types or name.endswith("processor")
    assert set(inspect.signature(one).parameters) - types.keys() - ANY - {"self"} == set()


@pytest.mark.parametrize("name", [name for name in mipnb.__all__ if inspect.isclass(getattr(mipnb, name))])
def test_every_field_of_a_public_class_is_typed_and_described(name: str):
    found = getattr(mipnb, name)
    for field in dataclasses.fields(found):
        assert re.search(rf"\b{field.name}\b", found.__doc__), field.name


def test_help_names_every_choice():
    told = {name: inspect.getdoc(getattr(mipnb, name)) for name in ("locate", "select")}
    keywords = inspect.signature(attribute).parameters.values()
    choices = {one.name for one in keywords if one.kind is one.KEYWORD_ONLY} - {
        "names",
        "ffns",
        "fingerprint",
    }
    assert [name for name in choices if not re.search(rf"\b{name}: ", told["locate"])] == []
    for words, where in (((*SEARCHES, *RULES, *ADAPTIVE), "locate"), (RANKINGS + AGGREGATES, "select")):
        assert [word for word in words if f'"{word}"' not in told[where]] == []


def test_the_package_and_the_readme_show_the_same_lines():
    assert readme_lines() == package_lines()


def readme_lines() -> list[str]:
    """The code of README's section for library users, its import left out."""
    text = (project_root() / "README.md").read_text().split("## As a library")[1].split("\n## ")[0]
    return [line.strip() for line in text.splitlines() if line.startswith("    ") and "import" not in line]


def package_lines() -> list[str]:
    return [line.strip() for line in mipnb.__doc__.splitlines() if line.startswith("    ")]


def test_what_type_checkers_see_is_what_one_gets():
    tree = ast.parse(Path(mipnb.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"mipnb.{module}" for name, module in mipnb._FROM.items()}
    assert sorted(seen) == sorted(mipnb.__all__)
    assert not typing.TYPE_CHECKING


def test_importing_loads_no_model_library_and_help_lists_all():
    code = "import sys, mipnb; print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules))); help(mipnb)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, _, rest = done.stdout.partition("\n")
    assert first == "[]"
    assert "edit.remove(model)" in rest


def test_an_unknown_name_is_refused_with_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'locat'; public are Edit, .*locate"):
        mipnb.locat  # noqa: B018
