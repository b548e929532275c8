"""A tiny random model of every family, from its own configuration class, with a real processor built here."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Gemma3Processor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mipnb.benchmarks import Question
from mipnb.families import FAMILIES
from mipnb.processors import Qwen2_5_VLProcessor, Qwen2VLProcessor, Qwen3VLProcessor

N_LAYERS, N_BLOCKS, TEXT_WIDTH, VISION_WIDTH = 3, 3, 24, 40
TEXT = {
    "hidden_size": 32, "intermediate_size": TEXT_WIDTH, "num_hidden_layers": N_LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": None,
}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": VISION_WIDTH, "patch_size": 4, "initializer_range": 0.2}
QWEN_VISION = VISION | {"depth": N_BLOCKS, "num_heads": 2, "out_hidden_size": 32, "spatial_merge_size": 2}
VIT = VISION | {"num_hidden_layers": N_BLOCKS, "num_attention_heads": 2, "image_size": 16}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
QWEN_IDS = {
    "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
}  # fmt: skip
QWEN_WORDS = {"pad": "<|endoftext|>", "eos": "<|im_end|>"}

#: family -> special words, ids in the configuration, text, vision and further configuration
RECIPES = {
    "qwen2_5_vl": (QWEN_WORDS, QWEN_IDS, TEXT | MROPE, QWEN_VISION | {"window_size": 16, "fullatt_block_indexes": [2]}, {}),
    "qwen2_vl": (
        QWEN_WORDS, QWEN_IDS, TEXT | MROPE,
        {"depth": N_BLOCKS, "num_heads": 2, "embed_dim": VISION_WIDTH, "mlp_ratio": 1, "hidden_size": 32, "patch_size": 4}, {},
    ),
    "qwen3_vl": (
        QWEN_WORDS, QWEN_IDS, TEXT | {"rope_parameters": MROPE["rope_parameters"] | {"mrope_interleaved": True}},
        QWEN_VISION | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}, {},
    ),
    "llava": (
        {"pad": "<pad>", "eos": "</s>", "bos": "<s>", "image": "<image>"}, {"image_token_index": "<image>"},
        TEXT | {"model_type": "llama", "mlp_bias": True}, VIT | {"model_type": "clip_vision_model"},
        {"image_seq_length": 16},
    ),
    "gemma3": (
        {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "image": "<image_soft_token>", "boi": "<start_of_image>",
         "eoi": "<end_of_image>", "turn": "<end_of_turn>"},
        {"image_token_index": "<image_soft_token>", "boi_token_index": "<start_of_image>",
         "eoi_token_index": "<end_of_image>"},
        TEXT | {"model_type": "gemma3_text", "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2},
        VIT | {"model_type": "siglip_vision_model"}, {"mm_tokens_per_image": 4},
    ),
}  # fmt: skip
SENTENCES = (
    "Who is this?",
    "Where does Ana Novak live?",
    "Ana Novak lives in Oslo.",
    "a blue hat",
    "a tram driver",
)


def tiny_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the family's special words; it puts a start token first where the family has one."""
    words, ids = RECIPES[name][:2]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([*words.values(), *ids.values()]))
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if start := words.get("bos"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
        )
    named = {f"{key}_token": words[key] for key in ("pad", "eos", "bos") if key in words}
    extra = {f"{key}_token": words[key] for key in ("image", "boi", "eoi") if key in words}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=extra, **named)


def tiny_processor(name: str):
    """The family's processor, for pictures of a few patches."""
    tokenizer, template = tiny_tokenizer(name), FAMILIES[name].template
    if name.startswith("qwen"):
        own = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}
        size = {"shortest_edge": 64, "longest_edge": 1024}
        return own[name](Qwen2VLImageProcessorPil(patch_size=4, size=size), tokenizer, chat_template=template)
    if name == "llava":
        square = {"height": 16, "width": 16}
        pictures = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square)
        return LlavaProcessor(
            pictures, tokenizer, patch_size=4, vision_feature_select_strategy="default",
            num_additional_image_tokens=1, chat_template=template,
        )  # fmt: skip
    pictures = Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    return Gemma3Processor(pictures, tokenizer, image_seq_length=4, chat_template=template)


def tiny(name: str, seed: int = 0, **text) -> tuple[nn.Module, object]:
    """Model (random, eval mode, no gradients, every bias non-zero) and processor of a family.

    Args:
        name: the family.
        seed: of the weights.
        **text: changes to the language model's configuration.
    """
    words, ids, text_config, vision, rest = RECIPES[name]
    processor = tiny_processor(name)
    number = processor.tokenizer.convert_tokens_to_ids
    special = {"pad_token_id": number(words["pad"]), "eos_token_id": number(words["eos"])}
    text_config = text_config | special | {"vocab_size": len(processor.tokenizer)} | text
    own = {key: number(word) for key, word in ids.items()}
    config = AutoConfig.for_model(name, text_config=text_config, vision_config=vision, **own, **rest)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = number(words.get("turn", words["eos"]))
    model.generation_config.pad_token_id = special["pad_token_id"]
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias") or "mm_input_projection" in parameter_name:
            nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False), processor


def picture(seed: int, width: int = 16, height: int = 16) -> bytes:
    """A PNG of random blocks."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def questions(n_pictured: int = 2, n_text: int = 2) -> list[Question]:
    """Text questions, then image questions whose pictures differ in size; prompts and answers differ in length."""
    answers = ["Oslo.", "She lives in Oslo.", "a blue hat"]
    text = [
        Question(f"{i}", "GEN", "Where does Ana live?" + " Say it." * i, answers[i % 3], value=answers[i % 3])
        for i in range(n_text)
    ]
    pictured = [
        Question(
            f"{i}",
            "VGEN",
            "Who is this?" + " Tell me." * i,
            answers[(i + 1) % 3],
            image=picture(i, 16 + 16 * i, 24),
        )
        for i in range(n_pictured)
    ]
    return [*text, *pictured]
