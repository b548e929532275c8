"""Results of a notebook that is not through yet, kept so that a run that was stopped goes on where it was.

They lie in a hidden folder of the notebook's own folder, one file a piece, each written whole or not at all, below a
name that is made from everything the piece depends on: another model, edit, parameter, question or program finds
nothing there. `report.finish`, the last cell of every notebook, removes them, unless they are to be kept (`mipnb run
--keep-partial`): then the notebook run again, with another text or plot, or more seeds, takes them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mipnb.artefacts import PARTIAL, sha256
from mipnb.benchmarks import Question
from mipnb.models import fingerprint, stored

Result = TypeVar("Result")
_PACKAGE = Path(__file__).resolve().parent
_DIGESTS: weakref.WeakKeyDictionary[nn.Module, tuple[tuple, str]] = (
    weakref.WeakKeyDictionary()
)  # state, digest
_AT_ONCE = 2**20  # bytes of a tensor that are added up at a time: sums take eight times as much


@dataclass(frozen=True)
class Partial:
    """Where the pieces of one result lie; without a folder nothing is kept."""

    folder: Path | None

    def remembered(
        self,
        name: str,
        make: Callable[[], Result],
        write: Callable[[Result, Path], Any],
        read: Callable[[Path], Result],
    ) -> Result:
        """The piece as it was kept, or made now and kept.

        Args:
            name: the piece's file name.
            make: makes it.
            write: writes it to a path, whole or not at all.
            read: reads what `write` wrote; ValueError or OSError if it is damaged, then it is made anew.
        """
        found = self.find(name, read)
        return self.keep(name, make(), write) if found is None else found

    def keep(self, name: str, piece: Result, write: Callable[[Result, Path], Any]) -> Result:
        """The piece, kept under a name if anything is; arguments as `remembered`."""
        if self.folder is not None:
            write(piece, self.folder / name)
        return piece

    def all(self, read: Callable[[Path], Result]) -> list[Result]:
        """Every piece that was kept and is whole, in order of name."""
        there = sorted(self.folder.iterdir()) if self.folder is not None and self.folder.is_dir() else []
        pieces = [self.find(path.name, read) for path in there]
        return [piece for piece in pieces if piece is not None]

    def find(self, name: str, read: Callable[[Path], Result]) -> Result | None:
        """The piece as it was kept; None if it was not, or is damaged."""
        if self.folder is None or not (self.folder / name).is_file():
            return None
        try:
            return read(self.folder / name)
        except (ValueError, OSError):
            return None


def partial_results(stage: str | Path | None, kind: str, **made_from: Any) -> Partial:
    """Where the pieces of a result are kept.

    Args:
        stage: the notebook's folder in its run; None keeps nothing.
        kind: what the pieces are, e.g. "scores".
        **made_from: everything that the result depends on, as JSON can express it, or functions that tell it, which are
            called only where something is kept; the package's code and the versions of torch and transformers are
            added.
    """
    if stage is None:
        return Partial(None)
    told = {name: value() if callable(value) else value for name, value in made_from.items()}
    whole = json.dumps([told, _program()], sort_keys=True, default=str)
    return Partial(Path(stage) / PARTIAL / f"{kind}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}")


def _program() -> list[str]:
    """What computes: digests of the package's modules, and versions."""
    code = [sha256(path) for path in sorted(_PACKAGE.rglob("*.py"))]
    return [*code, *(importlib.metadata.version(name) for name in ("torch", "transformers"))]


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A 16-digit name of tensors: names, shapes, dtypes, and the sums of all bytes by row and by column.

    It is computed where the tensors are, and reads every value (`models.fingerprint` reads a sample, and may overlook
    an edit).
    """
    digest = hashlib.sha256()
    for name, tensor in tensors:
        octets = (
            tensor.detach()
            .reshape(-1, tensor.shape[-1] if tensor.dim() else 1)
            .contiguous()
            .view(torch.uint8)
        )
        by_column = torch.zeros(octets.shape[1], dtype=torch.int64)
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        for part in octets.split(max(1, _AT_ONCE // max(1, octets.shape[1]))):
            by_column += part.sum(0, dtype=torch.int64).cpu()
            digest.update(part.sum(1, dtype=torch.int64).cpu().numpy().tobytes())
        digest.update(by_column.numpy().tobytes())
    return digest.hexdigest()[:16]


def weights_digest(model: nn.Module) -> str:
    """A name of a model's weights, dtype and kind of device, and so of the edit in it.

    All weights are read for it, once as long as they stay as they are: autograd counts what is written in place, and
    `fingerprint` sees what goes past it.
    """
    weights = [(name, stored(model, name)) for name, _ in model.named_parameters()]
    state = (fingerprint(model), *((values.data_ptr(), values._version) for _, values in weights))
    if _DIGESTS.get(model, (None,))[0] != state:
        _DIGESTS[model] = (state, f"{model.device.type} {tensors_digest(weights)}")
    return _DIGESTS[model][1]


def processor_digest(processor: Any) -> str:
    """A name of what makes batches of questions: tokenizer, picture settings, chat template."""
    parts = [processor, *(getattr(processor, name, None) for name in ("image_processor", "tokenizer"))]
    told = [part.to_dict() for part in parts[:2] if hasattr(part, "to_dict")]
    words = getattr(parts[2], "backend_tokenizer", None)
    told += [getattr(part, "chat_template", None) for part in parts] + [words and words.to_str()]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def batches_digest(batches: Sequence[Mapping[str, Tensor]]) -> str:
    """A name of encoded batches, in their order."""
    return tensors_digest(
        (f"{number} {key}", batch[key]) for number, batch in enumerate(batches) for key in sorted(batch)
    )


def questions_digest(questions: Iterable[Question]) -> str:
    """A name of questions with answers, options and pictures, in their order."""
    digest = hashlib.sha256()
    for question in questions:
        fields = asdict(question) | {"image": _picture(question.image)}
        digest.update(json.dumps(fields, default=str).encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4096)
def _picture(image: bytes | None) -> str:
    return "" if image is None else hashlib.sha256(image).hexdigest()
