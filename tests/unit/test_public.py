"""The public interface: every name is there, typed and documented, and importing costs nothing."""

import ast
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import mipnb


@pytest.mark.parametrize("name", mipnb.__all__)
def test_help_is_enough(name: str):
    found = getattr(mipnb, name)
    assert found.__doc__
    if inspect.isfunction(found):
        assert "return" in found.__annotations__
        untyped = set(inspect.signature(found).parameters) - set(found.__annotations__) - {"processor"}
        assert not untyped


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
