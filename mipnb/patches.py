"""A picture's patches embedded by a matrix product.

The patch embedding of a vision tower is a convolution over inputs of one window each (Qwen's packed patches). That is a
product with the flattened weights, which convolution kernels of a CPU take several times as long for, backward above all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import linear

from mipnb.replay import replaced


@contextmanager
def patches_as_products(model: nn.Module) -> Iterator[None]:
    """Convolutions over single windows are computed as products, for the length of a `with` block; all others as ever."""
    found = [
        module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Conv3d) and _plain(module)
    ]
    with replaced({module: partial(_product, module) for module in found}):
        yield


def _plain(module: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether the convolution's window is its kernel: no padding, no gaps, no groups."""
    return module.groups == 1 and set(module.dilation) == {1} and set(module.padding) == {0}


def _product(module: nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Tensor:
    """The convolution of inputs (batch, channels, *window): (batch, d_out, 1, ...), if the window is as large as the kernel."""
    if tuple(inputs.shape[2:]) != module.kernel_size:
        return type(module).forward(module, inputs)
    found = linear(inputs.flatten(1), module.weight.flatten(1), module.bias)
    return found[(..., *(None,) * len(module.kernel_size))]
