"""Published configurations' sizes, per checkpoint: what its config.json states, as far as shapes depend on it.

Written down by hand, not fetched; fields not named are the configuration classes' defaults in transformers 5.23.
`parameters` is the number of weights that the hub shows for the checkpoint (tied ones once), which confirms the other
numbers: a single wrong size changes it. None where it is not known for sure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """One checkpoint: configuration, (layers in the path, neurons a layer) of both branches, parameters."""

    name: str
    family: str
    text: dict[str, Any]
    vision: dict[str, Any]
    paths: dict[str, tuple[int, int]]
    parameters: int | None
    rest: dict[str, Any] = field(default_factory=dict)
    blocks: int = 0  # of the vision tower, where the path has fewer


def _text(
    hidden: int, width: int, layers: int, heads: int, kv: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocabulary, **more,
    }  # fmt: skip


_QWEN2_5_VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
    "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
_QWEN2_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
_LLAVA = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
_SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "image_size": 896, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
_GEMMA_TEXT = {"model_type": "gemma3_text", "head_dim": 256, "sliding_window": 1024}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
_TIED = {"tie_word_embeddings": True}

PUBLISHED = (
    Published(
        "Qwen2.5-VL-3B", "qwen2_5_vl", _text(2048, 11008, 36, 16, 2, 151936, **_MROPE),
        _QWEN2_5_VISION | {"out_hidden_size": 2048}, {"text": (36, 11008), "vision": (32, 3420)}, 3_754_622_976, _TIED,
    ),
    Published(
        "Qwen2.5-VL-7B", "qwen2_5_vl", _text(3584, 18944, 28, 28, 4, 152064, **_MROPE),
        _QWEN2_5_VISION | {"out_hidden_size": 3584}, {"text": (28, 18944), "vision": (32, 3420)}, 8_292_166_656,
    ),
    Published(
        "Qwen2-VL-2B", "qwen2_vl", _text(1536, 8960, 28, 12, 2, 151936, **_MROPE),
        _QWEN2_VISION | {"hidden_size": 1536}, {"text": (28, 8960), "vision": (32, 5120)}, 2_208_985_600, _TIED,
    ),
    Published(
        "Qwen2-VL-7B", "qwen2_vl", _text(3584, 18944, 28, 28, 4, 152064, **_MROPE),
        _QWEN2_VISION | {"hidden_size": 3584}, {"text": (28, 18944), "vision": (32, 5120)}, 8_291_375_616,
    ),
    Published(
        "LLaVA-1.5-7B", "llava", _text(4096, 11008, 32, 32, 32, 32064, model_type="llama"), _CLIP,
        {"text": (32, 11008), "vision": (23, 4096)}, 7_063_427_072, _LLAVA, blocks=24,
    ),
    Published(
        "LLaVA-1.5-13B", "llava", _text(5120, 13824, 40, 40, 40, 32064, model_type="llama"), _CLIP,
        {"text": (40, 13824), "vision": (23, 4096)}, None, _LLAVA, blocks=24,
    ),
    Published(
        "Gemma-3-4B", "gemma3", _text(2560, 10240, 34, 8, 4, 262208, **_GEMMA_TEXT), _SIGLIP,
        {"text": (34, 10240), "vision": (27, 4304)}, 4_300_079_472, _TIED,
    ),
    Published(
        "Qwen3-VL-4B", "qwen3_vl", _text(2560, 9728, 36, 32, 8, 151936, head_dim=128),
        {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560,
         "deepstack_visual_indexes": [5, 11, 17]},
        {"text": (36, 9728), "vision": (24, 4096)}, 4_437_815_808, _TIED,
    ),
)  # fmt: skip
