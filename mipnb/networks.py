"""The feed-forward networks and layers of a loaded model, found by its family's record, refused on a wrong count."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mipnb.families import Branch, family, lookup


@dataclass(frozen=True, eq=False)
class FFN:
    """One feed-forward network, resolved on a loaded model.

    Attributes:
        name: dotted name of the layer it sits in.
        inputs: the linear layers that make the activation, (gate, up) or (fc1,); weights (d_ff, hidden).
        output: the last linear layer, weight (hidden, d_ff).
        input_names: dotted names of `inputs`.
        output_name: dotted name of `output`.
        activation: the non-linearity.
    """

    name: str
    inputs: tuple[nn.Linear, ...]
    output: nn.Linear
    input_names: tuple[str, ...]
    output_name: str
    activation: nn.Module

    @property
    def n_neurons(self) -> int:
        """Number of neurons, d_ff."""
        return self.output.in_features

    @property
    def gated(self) -> bool:
        """Whether the activation is act(gate(x)) * up(x), rather than act(fc1(x))."""
        return len(self.inputs) == 2


def ffns(model: nn.Module, branch: str) -> list[FFN]:
    """The feed-forward networks of a branch, first layer first.

    A vision tower whose features leave it before its last layer (LLaVA-1.5: `vision_feature_layer` -2) ends
    there: no answer depends on the layers after them.

    Args:
        model: a loaded model of a known family.
        branch: "text" or "vision".

    Raises:
        ValueError: unknown family or branch; a module is missing or a count is wrong (what was found is named).
    """
    record = family(model.config.model_type).branch(branch)
    layers = _layers(model, record)
    used = list(layers)[: _n_used(model.config, record, len(layers))]
    return [_ffn(f"{record.layers}.{index}", layer, record, model.config) for index, layer in enumerate(used)]


def text_layers(model: nn.Module) -> nn.ModuleList:
    """The language model's decoder layers, whose outputs are the hidden states (batch, tokens, hidden)."""
    return _layers(model, family(model.config.model_type).text)


def vision_tower(model: nn.Module) -> nn.Module:
    """The module that holds every vision parameter but the connector to the language model where that lies apart."""
    return lookup(model, family(model.config.model_type).tower)


def _layers(model: nn.Module, record: Branch) -> nn.ModuleList:
    expected = lookup(model.config, record.count)
    try:
        layers = lookup(model, record.layers)
    except AttributeError:
        names = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
        raise ValueError(f"no {record.layers} in this model; its lists of layers are {names}") from None
    if len(layers) != expected:
        raise ValueError(f"{record.layers} holds {len(layers)} layers, the configuration says {expected}")
    return layers


def _n_used(config, record: Branch, n_layers: int) -> int:
    """How many of the layers the answer depends on, from the hidden states (0 to n_layers) that are taken."""
    if not record.features:
        return n_layers
    taken = lookup(config, record.features)
    states = range(n_layers + 1)
    try:
        last = max(states[index] for index in ([taken] if isinstance(taken, int) else taken))
    except IndexError:
        raise ValueError(f"{record.features} is {taken}, the tower has {len(states)} hidden states") from None
    if last == 0:
        raise ValueError(
            f"{record.features} is {taken}: the features are the embeddings, no layer makes them"
        )
    return last


def _ffn(name: str, layer: nn.Module, record: Branch, config) -> FFN:
    try:
        inputs = tuple(lookup(layer, path) for path in record.inputs)
        output, activation = lookup(layer, record.output), lookup(layer, record.activation)
    except AttributeError:
        found = [child for child, module in layer.named_modules() if isinstance(module, nn.Linear)]
        raise ValueError(
            f"{name} lacks {(*record.inputs, record.output, record.activation)}; its linear layers are {found}"
        ) from None
    expected = lookup(config, record.width) if record.width else inputs[0].out_features
    widths = {linear.out_features for linear in inputs} | {output.in_features}
    if widths != {expected}:
        raise ValueError(
            f"{name} has networks of {sorted(widths)} neurons, the configuration says {expected}"
        )
    names = tuple(f"{name}.{path}" for path in record.inputs)
    return FFN(name, inputs, output, names, f"{name}.{record.output}", activation)
