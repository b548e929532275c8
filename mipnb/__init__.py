"""mipnb: cross-modal unlearning by neuron-path editing (arXiv 2511.06793), as a workbook and as a library.

Locate, edit and undo on a model of one's own; `forget` and `retain` are lists of `mipnb.Question`:

    model, processor = mipnb.load_model("path/to/model"), mipnb.load_processor("path/to/model")
    scores = [mipnb.locate(model, processor, questions, "text") for questions in (forget, retain)]
    path = mipnb.select(*scores, top_k=48, ranking="contrast")
    edit, history = mipnb.edit(model, [path], [mipnb.encode(processor, forget)], [mipnb.encode(processor, retain)])
    edit.apply(model)  # and edit.remove(model) takes it out again, bit for bit

Importing the package is free of side effects and loads no model library: a name is looked up when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mipnb.batches import encode
    from mipnb.benchmarks import Question
    from mipnb.editing import edit, prune
    from mipnb.edits import Edit
    from mipnb.explore.dial import scaled
    from mipnb.explore.neurons import NeuronReport, neuron_report
    from mipnb.generation import generate
    from mipnb.in_rounds import locate_in_rounds
    from mipnb.learned_gates import learn_path
    from mipnb.locating import locate
    from mipnb.models import load_model, load_processor, save_model
    from mipnb.paths import NeuronPath, random_path, select
    from mipnb.rmisu import EditConfig
    from mipnb.scores import Scores

__version__ = "0.1.0"
__all__ = [
    "Edit", "EditConfig", "NeuronPath", "NeuronReport", "Question", "Scores", "edit", "encode", "generate", "learn_path",
    "load_model", "load_processor", "locate", "locate_in_rounds", "neuron_report", "prune", "random_path", "save_model",
    "scaled", "select",
]  # fmt: skip
#: public name -> the module that it is from
_FROM = {
    "Edit": "edits", "EditConfig": "rmisu", "NeuronPath": "paths", "NeuronReport": "explore.neurons",
    "Question": "benchmarks", "Scores": "scores", "edit": "editing", "encode": "batches", "generate": "generation",
    "learn_path": "learned_gates", "locate_in_rounds": "in_rounds",
    "load_model": "models", "load_processor": "models", "locate": "locating", "neuron_report": "explore.neurons",
    "prune": "editing", "random_path": "paths", "save_model": "models", "scaled": "explore.dial", "select": "paths",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'mipnb' has no attribute {name!r}; public are {', '.join(__all__)}")
    return getattr(importlib.import_module(f"mipnb.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
