"""Which precision is computed in: bfloat16 products while training, float32 throughout while locating.

Scores rank neurons, and neighbours in rank lie close: rounding activations to bfloat16 before each product is enough to
exchange some of them at the end of the path (on the pocket model 3-5 % of the text path; TensorFloat-32 about 1 %).
Weights in bfloat16 are another matter: each of them is a float32 number too, so they can stay as they are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

_AT_ONCE = 2**26  # weights of one layer made float32 at a time: 256 MiB


def mixed_precision() -> torch.autocast:
    """bfloat16 matrix products on processors that have them (about twice as fast), else none.

    Casts are not cached, so that weights trained within one context are seen as they are.
    """
    supported = torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=supported, cache_enabled=False)


def training_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention as plain matrix products on a CPU: its fused kernel takes longer over short sequences, backward above all.

    Elsewhere the choice is torch's own.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


@contextmanager
def float32_arithmetic(model: nn.Module) -> Iterator[None]:
    """Compute a bfloat16 or float16 model in float32, without a float32 copy of it.

    Linear layers are made float32 one at a time, for as long as their product takes, forward and backward; what is
    small (norms, patch embeddings, biases) for as long as the context lasts. Results, and gradients in activations,
    are those of the same weights loaded in float32; on a GPU products are TensorFloat-32's. Activations take twice the
    memory that they take in bfloat16. Weights get no gradients. A float32 model is computed as ever, and autocast around either
    is off. What a model rounds by itself stays rounded (Gemma 3 its embeddings' scale, to the weights' dtype).

    Args:
        model: on any device; it is left as found, bit for bit.
    """
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    with ExitStack() as stack:
        for device in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if all(parameter.dtype == torch.float32 for parameter in model.parameters()):
            yield
            return
        stack.enter_context(_tensor_float32() if on_gpu else nullcontext())
        for parameter in _small_parameters(model):
            stack.callback(setattr, parameter, "data", parameter.data)
            parameter.data = parameter.data.float()
        stack.enter_context(_Float32())
        yield


def _small_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of what is neither a linear layer nor an embedding; kinds of linear layers of their own among them."""
    for module in model.modules():
        if type(module) is not nn.Linear and not isinstance(module, nn.Embedding):
            yield from module.parameters(recurse=False)


@contextmanager
def _tensor_float32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class _Float32(TorchFunctionMode):
    """Linear layers and embeddings whose weights are in a shorter dtype answer in float32."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear and _weight(args, kwargs).dtype != torch.float32:
            return _linear(*args, **kwargs)
        if func is functional.embedding:
            return func(*args, **kwargs).float()
        return func(*args, **kwargs)


def _weight(args: tuple, kwargs: dict) -> Tensor:
    return args[1] if len(args) > 1 else kwargs["weight"]


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _Product.apply(input.float(), weight, bias)


class _Product(torch.autograd.Function):
    """x W^T + b in float32, W in its own dtype: the backward pass keeps W as it is, not its float32 copy."""

    @staticmethod
    def forward(context: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product, float32 (..., d_out).

        Args:
            context: autograd's; keeps the weight.
            input: float32 (..., d_in).
            weight: (d_out, d_in) in any float dtype; its rows are made float32 some at a time.
            bias: (d_out,), or None.
        """
        context.save_for_backward(weight)
        rows = _rows(weight)
        biases = [None] * len(weight) if bias is None else bias.float().split(rows)
        parts = [
            functional.linear(input, part.float(), own)
            for part, own in zip(weight.split(rows), biases, strict=False)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient in the input, float32 (..., d_in), from that in the product (..., d_out); none in weight and bias."""
        (weight,) = context.saved_tensors
        rows = _rows(weight)
        pairs = zip(gradient.split(rows, dim=-1), weight.split(rows), strict=True)
        return sum(own @ part.float() for own, part in pairs), None, None


def _rows(weight: Tensor) -> int:
    """How many rows of a weight are made float32 at a time."""
    return max(1, _AT_ONCE // weight.shape[1])
