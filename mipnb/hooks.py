"""Reading, scaling and silencing neurons while a model runs: context managers whose hooks always come off.

A neuron's *activation* is the input of its FFN's last linear layer: (batch, tokens, d_ff) in the language
model and in CLIP-like vision towers, (patches, d_ff) in Qwen's vision tower, which packs the patches of all
pictures in one list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from mipnb.models import FFN


@contextmanager
def gated(
    ffns: Sequence[FFN], gates: Sequence[Tensor], owner: Tensor | None = None
) -> Iterator[list[Tensor | None]]:
    """Multiply neuron activations by one gate per sample and neuron, at all of the sample's positions.

    Args:
        ffns: the networks to gate; there may be fewer gates, then only the first networks are gated.
        gates: per network, float32 (batch, n_neurons); they may require a gradient. The product is formed in
            float32 and cast to the activation's dtype.
        owner: for packed activations, int64 (patches,): the row of the gates that each patch takes.

    Yields:
        A list with one entry per gate: after a forward pass, the gated activations of that network, as they
        entered its last linear layer, still in the graph.

    Raises:
        ValueError: (at the forward pass) gates whose shape does not fit the activations.
    """
    seen: list[Tensor | None] = [None] * len(gates)
    with ExitStack() as stack:
        for index, (ffn, gate) in enumerate(zip(ffns, gates, strict=False)):
            _pre_hook(stack, ffn, _gate_hook(ffn, index, gate, owner, seen))
        yield seen


@contextmanager
def captured(ffns: Sequence[FFN]) -> Iterator[list[Tensor | None]]:
    """Collect neuron activations, detached, without changing them.

    Yields:
        A list with one entry per network: after a forward pass, its activations in the model's own shape and
        dtype.
    """
    seen: list[Tensor | None] = [None] * len(ffns)

    def keep(index: int):
        def hook(module: nn.Module, args: tuple) -> None:
            seen[index] = args[0].detach()

        return hook

    with ExitStack() as stack:
        for index, ffn in enumerate(ffns):
            _pre_hook(stack, ffn, keep(index))
        yield seen


@contextmanager
def zeroed(ffns: Sequence[FFN], neurons: Sequence[Sequence[int]] | None = None) -> Iterator[None]:
    """Silence neurons at every position while the context lasts; the weights are not touched.

    Args:
        ffns: the networks.
        neurons: per network the neurons to silence; None silences all. A bias of the last linear layer stays.

    Raises:
        ValueError: another number of layers than networks, or a neuron that its network does not have.
    """
    chosen = [range(ffn.n_neurons) for ffn in ffns] if neurons is None else neurons
    if len(chosen) != len(ffns):
        raise ValueError(f"neurons are given for {len(chosen)} layers, the model has {len(ffns)}")
    with ExitStack() as stack:
        for ffn, indices in zip(ffns, chosen, strict=True):
            _pre_hook(stack, ffn, _zero_hook(ffn, indices))
        yield


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for weights, with every flag put back afterwards, also on an error."""
    training = [(module, module.training) for module in model.modules()]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter in learning:
            parameter.requires_grad_(True)


def _pre_hook(stack: ExitStack, ffn: FFN, hook) -> None:
    stack.callback(ffn.output.register_forward_pre_hook(hook).remove)


def _gate_hook(ffn: FFN, index: int, gate: Tensor, owner: Tensor | None, seen: list):
    def hook(module: nn.Module, args: tuple) -> tuple:
        activation = args[0]
        seen[index] = (activation * _spread(gate, activation, owner, ffn.name)).to(activation.dtype)
        return (seen[index], *args[1:])

    return hook


def _spread(gate: Tensor, activation: Tensor, owner: Tensor | None, name: str) -> Tensor:
    """The gate of every position: (batch, 1, n_neurons), or (patches, n_neurons) through the owner."""
    rows = (gate[:, None] if owner is None else gate[owner]).to(activation.device)
    fits = rows.dim() == activation.dim() and rows.shape[0] == activation.shape[0]
    if not fits or rows.shape[-1] != activation.shape[-1]:
        raise ValueError(
            f"{name}: gates {tuple(gate.shape)} do not fit activations {tuple(activation.shape)}"
            + ("; packed patches need their owner" if owner is None else f" with {len(owner)} owned patches")
        )
    return rows


def _zero_hook(ffn: FFN, neurons: Sequence[int]):
    indices = torch.as_tensor(list(neurons), dtype=torch.long)
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < ffn.n_neurons:
        raise ValueError(f"{ffn.name} has neurons 0..{ffn.n_neurons - 1}; asked to silence {sorted(neurons)}")

    def hook(module: nn.Module, args: tuple) -> tuple:
        return (args[0].index_fill(-1, indices.to(args[0].device), 0), *args[1:])

    return hook
