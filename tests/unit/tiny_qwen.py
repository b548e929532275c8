"""A random Qwen2.5-VL of a few thousand parameters, with batches made by hand: no tokenizer, no files."""

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mipnb.batches import IGNORED

IMAGE, START, END, PAD, EOS = 90, 91, 92, 0, 1
TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "initializer_range": 0.3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 20,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 1,
    "window_size": 16,
    "fullatt_block_indexes": [1],
    "initializer_range": 0.3,
}


def tiny_model(seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """In eval mode, no parameter taking a gradient, every bias non-zero."""
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(
        text_config=TEXT, vision_config=VISION, image_token_id=IMAGE, vision_start_token_id=START,
        vision_end_token_id=END, tie_word_embeddings=True, pad_token_id=PAD, eos_token_id=EOS,
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.3)
    return model


def tiny_batch(seed: int, pictured: bool, size: int = 3, tokens: int = 9) -> dict[str, torch.Tensor]:
    """Right-padded: sample i has i padding tokens; the last three real tokens are the answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 90, (size, tokens), generator=generator)
    picture = (
        torch.tensor([START, IMAGE, IMAGE, IMAGE, IMAGE, END]) if pictured else torch.tensor([], dtype=int)
    )
    ids = torch.cat([picture.expand(size, -1), ids], 1)
    lengths = ids.shape[1] - torch.arange(size)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    real, answer = positions < lengths[:, None], positions >= lengths[:, None] - 3
    batch = {
        "input_ids": ids.masked_fill(~real, PAD),
        "attention_mask": real.long(),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "labels": ids.masked_fill(~(real & answer), IGNORED),
    }
    if pictured:
        grid = torch.tensor([[1, 4, 4]]).repeat(size, 1)
        pixels = torch.randn(size * 16, 3 * 16, generator=generator)
        batch |= {"pixel_values": pixels, "image_grid_thw": grid}
    return batch
