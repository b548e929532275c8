"""What a plan needs to know of a model: layers, widths and numbers of weights, read off its configuration alone.

The model is built on the meta device, so nothing is loaded and nothing is fetched. Configurations of published
models are in `params/models/`, for planning without a connection and before anything was downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from mipnb.artefacts import project_root, under_root
from mipnb.families import family, image_tokens, lookup
from mipnb.networks import ffns, vision_tower
from mipnb.sources import empty_model

MODELS = "params/models"


@dataclass(frozen=True)
class Tower:
    """One branch's layers.

    Attributes:
        layers: that an answer depends on.
        hidden: width of the residual stream.
        neurons: a layer, d_ff.
        heads_width: heads x head width, of the queries.
        weights: numbers in one layer.
        kv_width: key and value heads x head width, both.
        saved: numbers of the model's type that autograd keeps of one position in one layer.
        saved_network: of these, the feed-forward network's.
        saved_float32: the same in float32, which RMS norms make whatever the type.
        factors: linear layers into a neuron: 2 if gated, else 1.
    """

    layers: int
    hidden: int
    neurons: int
    heads_width: int
    weights: int
    kv_width: int
    saved: int
    saved_network: int
    saved_float32: int
    factors: int


@dataclass(frozen=True)
class Shape:
    """A model in numbers.

    Attributes:
        name: of the model.
        text, vision: its branches.
        weights: all numbers; tied ones once.
        vocabulary: number of words.
        connector: numbers between tower and language model.
        packed: whether a picture's number of patches follows from its size.
        patch: side of a patch, pixels.
        merge: side of the square of patches that becomes one text position, for a packed family.
        side: of a picture, pixels, where the family fixes it.
        image_tokens: text positions a picture, where the family fixes it.
        patch_width: numbers that come in with a patch.
    """

    name: str
    text: Tower
    vision: Tower
    weights: int
    vocabulary: int
    connector: int
    packed: bool
    patch: int
    merge: int
    side: int
    image_tokens: int
    patch_width: int

    def patches(self, side: int) -> int:
        """Patches of a square picture of `side` pixels, as the family cuts it."""
        if not self.packed:
            return (self.side // self.patch) ** 2
        return (max(1, round(side / (self.patch * self.merge))) * self.merge) ** 2

    def positions(self, side: int) -> int:
        """Text positions that such a picture takes."""
        return self.patches(side) // self.merge**2 if self.packed else self.image_tokens


def known_models() -> list[str]:
    """Names of the published models whose configurations come with mipnb."""
    return sorted(path.stem for path in (project_root() / MODELS).glob("*.json"))


def find_config(*names: str) -> tuple[str, PreTrainedConfig]:
    """The first configuration that can be had without a connection, and the name it was found under.

    Args:
        *names: model folders or hub ids, in order of preference.

    Raises:
        ValueError: none is a folder with a config.json, and none ends in the name of a known published model.
    """
    for name in names:
        folder = under_root(name)
        shipped = project_root() / MODELS / f"{Path(name).name.lower()}.json"
        for file in (folder / "config.json", shipped):
            if file.is_file():
                return name, AutoConfig.from_pretrained(file)
    raise ValueError(
        f"no configuration of {' or '.join(names)}: expected a folder with config.json, or a name that ends in one of "
        f"{', '.join(known_models())}; download the model, or put its config.json into {MODELS}/"
    )


def read_shape(name: str, config: PreTrainedConfig) -> Shape:
    """A model's numbers from its configuration; ValueError for a family without a record."""
    model, record = empty_model(config), family(config.model_type)
    vision = config.vision_config
    tower, language = vision_tower(model), model.get_decoder()
    head = {id(parameter) for parameter in model.get_output_embeddings().parameters()}
    elsewhere = {id(parameter) for part in (tower, language) for parameter in part.parameters()} | head
    connector = [parameter for parameter in model.parameters() if id(parameter) not in elsewhere]
    return Shape(
        name=name,
        text=_tower(model, "text", config.text_config),
        vision=_tower(model, "vision", vision),
        weights=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=config.text_config.vocab_size,
        connector=sum(map(_numel, connector)) + sum(map(_numel, _merger(tower).parameters())),
        packed=record.packed,
        patch=vision.patch_size,
        merge=lookup(config, record.image_tokens) if record.packed else 1,
        side=0 if record.packed else vision.image_size,
        image_tokens=0 if record.packed else image_tokens(config),
        patch_width=3 * vision.patch_size**2 * getattr(vision, "temporal_patch_size", 1),
    )


def _numel(tensor) -> int:
    return tensor.numel()


def _merger(tower: nn.Module) -> nn.Module:
    """The part of a packed tower that makes text positions of patches; an empty one if it lies outside."""
    return getattr(tower, "merger", nn.Module())


def _tower(model: nn.Module, branch: str, config: PreTrainedConfig) -> Tower:
    networks = ffns(model, branch)
    layer = lookup(model, networks[0].name)
    hidden, neurons = networks[0].output.out_features, networks[0].n_neurons
    heads = getattr(config, "num_attention_heads", None) or config.num_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    norms = [
        (type(part).__name__, part.weight.numel())
        for part in layer.modules()
        if "Norm" in type(part).__name__
    ]
    widths = [
        (kind, width * heads if width < hidden else width) for kind, width in norms
    ]  # a norm for each head
    rms = sum(width for kind, width in widths if "RMS" in kind)
    plain = sum(width for kind, width in widths if "RMS" not in kind)
    kept = 3 if networks[0].gated else 2 if type(networks[0].activation).__name__ == "QuickGELU" else 1
    return Tower(
        layers=len(networks),
        hidden=hidden,
        neurons=neurons,
        heads_width=heads * head,
        weights=sum(map(_numel, layer.parameters())),
        kv_width=2 * groups * head,
        saved=4 * heads * head + kept * neurons + plain,  # queries, keys, values, attended; network; norms
        saved_network=kept * neurons,
        saved_float32=rms,
        factors=len(networks[0].inputs),
    )
