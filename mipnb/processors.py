"""Loading a model's processor, so that a picture becomes the same tensor on every machine.

Pictures are always resized by Pillow, whether torchvision is there or not: torchvision's interpolation differs in
the last digits. Nothing here reads videos, the only thing that needs torchvision.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, LlavaProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor as _Qwen2_5
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor as _Qwen2
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor as _Qwen3
from transformers.processing_utils import ProcessorMixin

from mipnb.families import family
from mipnb.sources import local_folder, read_config


class _WithoutVideo:
    """A Qwen processor without its video part, which needs torchvision; saved folders look the same."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class Qwen2VLProcessor(_WithoutVideo, _Qwen2):
    """Qwen2-VL's, for text and pictures."""


class Qwen2_5_VLProcessor(_WithoutVideo, _Qwen2_5):
    """Qwen2.5-VL's, for text and pictures."""


class Qwen3VLProcessor(_WithoutVideo, _Qwen3):
    """Qwen3-VL's, for text and pictures."""


_OWN = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}


def load_processor(folder: str | Path, revision: str = "") -> ProcessorMixin:
    """The processor of a model: tokenizer, chat template and image processor.

    Args:
        folder: a local folder, or a hub id.
        revision: commit, tag or branch of a hub model; "" for its default.

    Returns:
        The family's processor. Its chat template is the checkpoint's; the family's where there is none.

    Raises:
        FileNotFoundError, ValueError: see `sources.read_config`.
    """
    config = read_config(folder, revision)
    source = local_folder(folder, revision)
    pictures = AutoImageProcessor.from_pretrained(source, backend="pil")
    if config.model_type in _OWN:
        files, _ = ProcessorMixin.get_processor_dict(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        template = files.get("chat_template") or tokenizer.chat_template
        processor = _OWN[config.model_type](pictures, tokenizer, chat_template=template)
    else:
        processor = AutoProcessor.from_pretrained(source)
        processor.image_processor = pictures
        processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(processor, LlavaProcessor) and processor.patch_size is None:
        _complete(processor, config)
    processor.chat_template = processor.chat_template or family(config.model_type).template
    return processor


def _complete(processor: LlavaProcessor, config) -> None:
    """What LLaVA checkpoints of 2023 leave to the configuration; CLIP adds one class token to the patches."""
    processor.patch_size = config.vision_config.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.num_additional_image_tokens = 1
