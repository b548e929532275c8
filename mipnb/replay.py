"""Forward passes that begin in the middle: what an earlier pass has computed stands in for the modules that made it.

Nothing here knows a family. A layer is the module that an FFN's name points to, its parent is whatever holds the list of
layers, and modules are put aside by giving them another `forward` for as long as a context lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mipnb.models import FFN


class Arrived(Exception):
    """Raised inside a pass that is wanted no further; never leaves this package."""


@dataclass(frozen=True, eq=False)
class Entry:
    """All that is computed when a pass comes to the last linear layer of a layer's FFN.

    Attributes:
        ffn: the network.
        outputs: what modules before it gave: tensors, or tuples that hold tensors, rows in the first dimension.
        activation: the neurons' activations there, unscaled, in the model's own shape and dtype.
    """

    ffn: FFN
    outputs: Mapping[nn.Module, Any]
    activation: Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """Where a branch's networks sit: their layers, and the module that runs the layers one after the other."""

    layers: tuple[nn.Module, ...]
    parent: nn.Module


def layout(model: nn.Module, ffns: Sequence[FFN]) -> Layout | None:
    """The layers by the networks' names; None where the names do not lead to neighbours in one list."""
    try:
        layers = tuple(model.get_submodule(ffn.name) for ffn in ffns)
        listed = list(model.get_submodule(ffns[0].name.rpartition(".")[0]))
        parent = model.get_submodule(ffns[0].name.rpartition(".")[0].rpartition(".")[0])
    except (AttributeError, TypeError):
        return None
    held = all(ffn.output in set(layer.modules()) for layer, ffn in zip(layers, ffns, strict=True))
    return Layout(layers, parent) if held and tuple(listed[: len(layers)]) == layers else None


def join(entries: Sequence[Entry]) -> Entry:
    """Rows of several passes at one place, as one: first entry's rows first."""
    first = entries[0]
    if len(entries) == 1:
        return first
    outputs = {
        module: _map(torch.cat, [entry.outputs[module] for entry in entries]) for module in first.outputs
    }
    return Entry(first.ffn, outputs, torch.cat([entry.activation for entry in entries]))


def split(entry: Entry, parts: int) -> list[Entry]:
    """The reverse of `join`, for parts of equal length."""

    def part(index: int) -> Callable[[list[Tensor]], Tensor]:
        """What takes the rows of one part, (rows / parts, ...), out of a list of one tensor (rows, ...)."""
        return lambda tensors: tensors[0].chunk(parts)[index]

    return [
        Entry(
            entry.ffn,
            {module: _map(part(index), [output]) for module, output in entry.outputs.items()},
            entry.activation.chunk(parts)[index],
        )
        for index in range(parts)
    ]


def _map(function: Callable[[list[Tensor]], Tensor], trees: Sequence[Any]) -> Any:
    """The function of the tensors that stand at one place in several tuples of one form."""
    if isinstance(trees[0], tuple | list):
        return tuple(_map(function, parts) for parts in zip(*trees, strict=True))
    return function(list(trees)) if isinstance(trees[0], Tensor) else trees[0]


@contextmanager
def replaced(forwards: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Modules run another function in place of their own; put back afterwards, also on an error."""
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                vars(module).pop("forward", None)
            else:
                module.forward = forward


@contextmanager
def entered(entry: Entry | None) -> Iterator[None]:
    """Passes begin at an entry, whose rows they must have: modules before it give what they gave there."""
    if entry is None:
        yield
        return
    outputs = {**entry.outputs, **dict.fromkeys(entry.ffn.inputs, entry.activation)}

    def enter(module: nn.Module, args: tuple) -> tuple:
        """Pre-hook of the last linear layer: its input becomes the entry's activation (rows, ..., n_neurons)."""
        return (entry.activation, *args[1:])  # whatever the non-linearity made of the stand-ins

    hook = entry.ffn.output.register_forward_pre_hook(enter, prepend=True)
    try:
        with replaced({module: _giving(output) for module, output in outputs.items()}):
            yield
    finally:
        hook.remove()


def _giving(output: Any) -> Callable:
    return lambda *args, **kwargs: output


@contextmanager
def recorded(
    place: Layout,
    index: int,
    ffn: FFN,
    below: Mapping[nn.Module, Any] = MappingProxyType({}),
    stop: bool = False,
) -> Iterator[list[Entry]]:
    """Note the entry to a layer's last linear layer.

    Args:
        place: of the branch.
        index: the layer.
        ffn: its network.
        below: outputs of the layers below, to be part of the entry.
        stop: end the pass there, by `Arrived`, which is caught here.

    Yields:
        A list that holds the entry once a pass has come there, detached. In the first layer it includes what the
        parent's own modules before the layers have made of the rows, such as embeddings.
    """
    seen: dict[nn.Module, Any] = {}
    found: list[Entry] = []

    def note(module: nn.Module, args: tuple, output: Any) -> None:
        """Hook: keeps what a module gave, a tensor or tuple of tensors, detached, until the pass has arrived."""
        if not found:
            seen[module] = _map(lambda tensors: tensors[0].detach(), [output])

    def arrive(module: nn.Module, args: tuple) -> None:
        """Pre-hook of the last linear layer: makes the entry of its input, the activation (rows, ..., n_neurons).

        Of what the parent's modules before the first layer gave, tensors of as many rows are part of it. Raises `Arrived`
        if the pass is to end here.
        """
        activation = args[0].detach()
        kept = {
            key: output for key, output in seen.items() if key not in first or _has_rows(output, activation)
        }
        found.append(Entry(ffn, {**below, **kept}, activation))
        if stop:
            raise Arrived

    first = _embedding(place) if index == 0 else []
    with ExitStack() as stack:
        for module in [*first, *_mixers(place.layers[index], ffn)]:
            stack.callback(module.register_forward_hook(note).remove)
        stack.callback(ffn.output.register_forward_pre_hook(arrive).remove)
        with suppress(Arrived):
            yield found


@contextmanager
def outputs_of(layer: nn.Module, into: dict[nn.Module, Any]) -> Iterator[None]:
    """Put what a layer gives, detached, under that layer into a dictionary."""

    def note(module: nn.Module, args: tuple, output: Any) -> None:
        """Hook: keeps what the layer gave, a tensor or tuple of tensors (rows, ...), detached."""
        into[module] = _map(lambda tensors: tensors[0].detach(), [output])

    hook = layer.register_forward_hook(note)
    try:
        yield
    finally:
        hook.remove()


def _has_rows(output: Any, activation: Tensor) -> bool:
    return isinstance(output, Tensor) and len(output) == len(activation)


def _embedding(place: Layout) -> list[nn.Module]:
    """The parent's own modules, without the list of layers."""
    return [module for module in place.parent.children() if not isinstance(module, nn.ModuleList)]


def _mixers(layer: nn.Module, ffn: FFN) -> list[nn.Module]:
    """A layer's modules worth putting aside beside its FFN: those with linear layers, such as attention."""
    own = {ffn.output, *ffn.inputs}
    found = []
    for child in layer.children():
        modules = set(child.modules())
        if not modules & own and any(isinstance(module, nn.Linear) for module in modules):
            found.append(child)
    return found
