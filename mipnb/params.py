"""Values of parameters, checked against the table in `parameters`: a notebook's, a file's, the command line's."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError, create_model

from mipnb.parameters import Params

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Params", "check_parameters", "show", "subset"]

_SEEN = "_mipnb_parameter_names"  # where a notebook's namespace remembers what its parameters are called


def subset(values: Mapping[str, Any]) -> Params:
    """Checks `values` and returns a frozen object with exactly those names as attributes.

    Raises:
        ValueError: For an unknown name (closest match suggested), a wrong type, or a value out of bounds.
    """
    _refuse_unknown(values)
    chosen = {
        name: (field.annotation, field) for name, field in Params.model_fields.items() if name in values
    }
    model = create_model("Parameters", __config__=Params.model_config, **chosen)
    try:
        return model(**values)
    except ValidationError as error:
        raise ValueError("\n".join(_explain(problem) for problem in error.errors())) from None


def _refuse_unknown(names: Iterable[str]) -> None:
    """Raises ValueError if a name is no parameter, suggesting the closest one."""
    unknown = [name for name in names if name not in Params.model_fields]
    if unknown:
        raise ValueError("\n".join(f"unknown parameter {name!r}: {_suggestion(name)}" for name in unknown))


def _suggestion(name: str) -> str:
    """Returns what to say after an unknown parameter name."""
    known = list(Params.model_fields)
    close = [other for other in known if other.startswith(name) or other.endswith(f"_{name}")]
    close = close or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"the parameters are {', '.join(known)}"


def _explain(problem: Mapping[str, Any]) -> str:
    """Returns one line for one of pydantic's complaints: what was found, what was expected, what it means."""
    name = str(problem["loc"][0])
    expected = re.sub(r"^(Input|String|Value) ", "", problem["msg"])
    value, meaning = problem["input"], Params.model_fields[name].description
    return f"parameter {name} = {value!r} ({type(value).__name__}): {expected} ({meaning})"


def check_parameters(namespace: dict[str, Any]) -> Params:
    """Checks what a notebook's `parameters` cell (and papermill) set, in the cell right below it.

    The first call in a kernel takes every plain value at hand for a parameter, so that a misspelt one is
    caught; it remembers the names, and a later call (the cell run again by hand) looks at those, whatever
    else was defined meanwhile.

    Args:
        namespace: The notebook's `globals()`.

    Returns:
        A frozen object with the notebook's parameters as attributes.

    Raises:
        ValueError: For an unknown name (closest match suggested), a wrong type, or a value out of bounds.
    """
    names = namespace.get(_SEEN) or [name for name, value in namespace.items() if _is_plain(name, value)]
    params = subset({name: namespace[name] for name in names})
    namespace[_SEEN] = names
    return params


def _is_plain(name: str, value: Any) -> bool:
    """Tells whether a name in a notebook's namespace can be a parameter: a plain value, no CONSTANT, not IPython's."""
    return (
        not name.startswith("_")
        and not name.isupper()
        and name not in {"In", "Out"}
        and isinstance(value, bool | int | float | str | list)
    )


def show(params: BaseModel) -> "pd.DataFrame":
    """Returns a table of the parameters: name (the index), value, meaning; shown whole, however long."""
    from mipnb.whole_table import WholeTable

    fields = type(params).model_fields
    rows = [(name, getattr(params, name), fields[name].description) for name in fields]
    return WholeTable(rows, columns=["name", "value", "meaning"]).set_index("name")
