"""Parameters from files and from the command line: YAML in, checked `Params` out."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mipnb.artefacts import project_root
from mipnb.params import Params, subset

__all__ = ["parameter_file", "parse_value", "read_parameters"]


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 5e-3 is a number too (YAML 1.1 wants 5.0e-3)."""


_Loader.yaml_implicit_resolvers = {
    key: list(pairs) for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_value(text: str) -> Any:
    """Returns the value of a parameter given on the command line: YAML, as in `10`, `5e-3`, `true`, `greedy`; nothing is "".

    Raises:
        ValueError: If the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader) if text.strip() else ""
    except yaml.YAMLError:
        raise ValueError(
            f"cannot read the value {text!r}: expected a number, true, false or a word"
        ) from None


def read_parameters(files: Sequence[str | Path] = (), given: Mapping[str, Any] | None = None) -> Params:
    """Returns the parameters of a run: the defaults, changed by each file in turn, then by `given`.

    Args:
        files: YAML files of `name: value`.
        given: Names and values that win over the files.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not a YAML mapping, or for an unknown, ill-typed or out-of-bounds parameter.
    """
    values = Params().model_dump()
    for path in files:
        values |= _checked_file(Path(path))
    values |= subset(given or {}).model_dump()
    return Params(**values)


def _checked_file(path: Path) -> dict[str, Any]:
    """Returns one parameter file's names and values, checked; errors name the file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"parameter file {path} is missing; the folder params/ holds those that come with mipnb"
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        if not isinstance(content, dict):
            raise ValueError(f"expected lines of `name: value`, found {type(content).__name__}")
        return subset({str(name): value for name, value in content.items()}).model_dump()
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"in {path}: {error}") from None


def parameter_file(name: str) -> Path:
    """Returns a parameter file as given, or the one of that name in the project's `params/`."""
    shipped = project_root() / "params" / f"{Path(name).name.removesuffix('.yaml')}.yaml"
    return shipped if not Path(name).is_file() and shipped.is_file() else Path(name)
