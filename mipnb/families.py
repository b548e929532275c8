"""What differs between model families, as records: where their feed-forward networks are, how they are asked.

A *family* is data, not code: dotted paths that are resolved on the loaded model and fail on a wrong count, and
the words around a question. Paths were read off transformers 5.23 on the meta device; tests hold them against
the published sizes. A *neuron* is one input column of a feed-forward network's last linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BRANCHES = ("text", "vision")


@dataclass(frozen=True)
class Branch:
    """Where one branch's feed-forward networks are.

    Attributes:
        layers: dotted path of the list of layers.
        inputs: names, below a layer, of the linear layers that make the activation: (gate, up), or (fc1,).
        output: name, below a layer, of the last linear layer; its input columns are the neurons.
        activation: name, below a layer, of the non-linearity.
        count: dotted path, in the configuration, of the number of layers.
        width: dotted path, in the configuration, of the number of neurons a layer; "" where it has none.
        features: dotted path, in the configuration, of the hidden states that leave the tower (0: the embeddings,
            n: layer n's output, negative: counted from the last). Layers after them carry no gradient, so the path
            ends there. "" where the last layer's are taken.
    """

    layers: str
    inputs: tuple[str, ...]
    output: str
    activation: str
    count: str
    width: str
    features: str = ""


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        text, vision: where the networks are.
        tower: dotted path of the vision tower, below which all vision parameters lie.
        processor: class name of its processor.
        packed: whether the patches of all pictures lie in one list, counted by `image_grid_thw`, so that a
            picture's number of tokens follows from its size; else every picture becomes the same number.
        image_tokens: dotted path, in the configuration, of that number; if packed, of the side of the square of
            patches that becomes one token.
        token_types: the model's name for the input that tells picture tokens (1) from text (0); "" if it takes none.
        template: chat template (Jinja) for a checkpoint that brings none.
        turn_end: token that ends an answer; "" for the tokenizer's end token.
    """

    text: Branch
    vision: Branch
    tower: str
    processor: str
    packed: bool
    image_tokens: str
    token_types: str
    template: str
    turn_end: str = ""

    def branch(self, name: str) -> Branch:
        """The record of "text" or "vision"; ValueError for another name."""
        if name not in BRANCHES:
            raise ValueError(f"branch {name!r} is not one of {BRANCHES}")
        return getattr(self, name)


#: Qwen's turns, without its system message
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Vicuna's turns as LLaVA-1.5 was tuned on, without a system message
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
#: Gemma's turns
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

_GATED = (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "mlp.act_fn")
_TEXT_SIZES = ("text_config.num_hidden_layers", "text_config.intermediate_size")
_TEXT = Branch("model.language_model.layers", *_GATED, *_TEXT_SIZES)
_VIT_SIZES = ("vision_config.num_hidden_layers", "vision_config.intermediate_size")
#: CLIP and SigLIP
_VIT = ("model.vision_tower.encoder.layers", ("mlp.fc1",), "mlp.fc2", "mlp.activation_fn", *_VIT_SIZES)
_QWEN_VISION_SIZES = ("vision_config.depth", "vision_config.intermediate_size")
_QWEN: dict[str, Any] = {
    "text": _TEXT, "tower": "model.visual", "packed": True, "image_tokens": "vision_config.spatial_merge_size",
    "token_types": "mm_token_type_ids", "template": QWEN_TEMPLATE,
}  # fmt: skip

FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": Family(
        vision=Branch("model.visual.blocks", *_GATED, *_QWEN_VISION_SIZES),
        processor="Qwen2_5_VLProcessor",
        **_QWEN,
    ),
    "qwen2_vl": Family(
        # the configuration has no vision intermediate_size: it is mlp_ratio x embed_dim
        vision=Branch("model.visual.blocks", ("mlp.fc1",), "mlp.fc2", "mlp.act", "vision_config.depth", ""),
        processor="Qwen2VLProcessor",
        **_QWEN,
    ),
    "qwen3_vl": Family(
        vision=Branch(
            "model.visual.blocks", ("mlp.linear_fc1",), "mlp.linear_fc2", "mlp.act_fn", *_QWEN_VISION_SIZES
        ),
        processor="Qwen3VLProcessor",
        **_QWEN,
    ),
    "llava": Family(
        text=_TEXT,
        vision=Branch(*_VIT, features="vision_feature_layer"),
        tower="model.vision_tower",
        processor="LlavaProcessor",
        packed=False,
        image_tokens="image_seq_length",
        token_types="",
        template=LLAVA_TEMPLATE,
    ),
    "gemma3": Family(
        text=_TEXT,
        vision=Branch(*_VIT),
        tower="model.vision_tower",
        processor="Gemma3Processor",
        packed=False,
        image_tokens="mm_tokens_per_image",
        token_types="token_type_ids",
        template=GEMMA_TEMPLATE,
        turn_end="<end_of_turn>",
    ),
}


def family(model_type: str) -> Family:
    """The record of a model family; ValueError if there is none."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(
            f"model_type {model_type!r} has no family record; known: {known}. Add one to mipnb.families.FAMILIES."
        )
    return FAMILIES[model_type]


def family_of(processor: Any) -> Family:
    """The record that a processor belongs to, by its class; ValueError if there is none."""
    names = {cls.__name__ for cls in type(processor).__mro__}
    for record in FAMILIES.values():
        if record.processor in names:
            return record
    known = ", ".join(sorted(record.processor for record in FAMILIES.values()))
    raise ValueError(f"no family record for a {type(processor).__name__}; known processors: {known}")


def lookup(tree: Any, path: str) -> Any:
    """What a dotted path leads to below an object; AttributeError if it leads nowhere."""
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def image_tokens(config: Any, patches: int | None = None) -> int:
    """Text positions that one picture takes.

    Args:
        config: the model's configuration.
        patches: how many patches the picture was cut into; needed for packed families.
    """
    record = family(config.model_type)
    number = lookup(config, record.image_tokens)
    if not record.packed:
        return number
    if patches is None:
        raise ValueError(
            f"{config.model_type}: the number of tokens follows from the picture's size; give patches"
        )
    return patches // number**2
