"""Bias, shortcut and ReLU behind a convolution as Triton kernels: one pass forward, one pass backward.

Feature maps (B, C, h, w) lie channels last, so that they are matrices of B·h·w rows and C columns.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from losses.triton_support import ceil_div

BLOCK = 1024  # elements of a program forward
ROWS, COLUMNS = 64, 64  # of a tile backward
MOST_PROGRAMS = 1024  # backward, each of which leaves a sum of every channel that it has
FEWEST_SUMS = 64  # of a channel, if its map has as many tiles


class Epilogue(torch.autograd.Function):
    """ReLU of a map plus a bias of its channels plus, if given, a map of its shape; in the memory of the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, shortcut: Tensor | None) -> Tensor:
        _add(x, bias, shortcut, relu=True)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.has_shortcut, ctx.bias_type = shortcut is not None, bias.dtype
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        (y,) = ctx.saved_tensors
        result = torch.empty_like(y, memory_format=torch.channels_last)
        sums = _sums(grad.contiguous(memory_format=torch.channels_last), y, result)
        return result, sums.to(ctx.bias_type), result if ctx.has_shortcut else None


class Bias(torch.autograd.Function):
    """A map plus a bias of its channels, in its memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        _add(x, bias, None, relu=False)
        ctx.mark_dirty(x)
        ctx.bias_type = bias.dtype
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        grad = grad.contiguous(memory_format=torch.channels_last)
        return grad, _sums(grad, None, None).to(ctx.bias_type)


def _add(x: Tensor, bias: Tensor, shortcut: Tensor | None, relu: bool) -> None:
    with torch.cuda.device_of(x):
        _forward[(ceil_div(x.numel(), BLOCK),)](
            *(x, bias, x if shortcut is None else shortcut, x.numel(), x.shape[1], shortcut is not None, relu, BLOCK)
        )


def _sums(grad: Tensor, y: Tensor | None, result: Tensor | None) -> Tensor:
    """Sums of the gradient over each channel, (C,) float32; with a map y only where that is not 0, kept in result."""
    channels = grad.shape[1]
    rows, tiles = grad.numel() // channels, ceil_div(channels, COLUMNS)
    each = ROWS * ceil_div(ceil_div(rows, ROWS), max(FEWEST_SUMS, MOST_PROGRAMS // tiles))
    grid = ceil_div(rows, each), tiles
    sums = torch.empty(grid[0], channels, dtype=torch.float32, device=grad.device)
    with torch.cuda.device_of(grad):
        _backward[grid](grad, y, result, sums, rows, each, channels, ROWS, COLUMNS)
    return sums.sum(dim=0)


@triton.jit  # a size that 16 divides lets Triton load 16 bytes at a time
def _forward(
    x,
    bias,
    shortcut,
    size,
    CHANNELS: tl.constexpr,
    SHORTCUT: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < size
    value = tl.load(x + entry, mask=inside, other=0).to(tl.float32) + tl.load(bias + entry % CHANNELS).to(tl.float32)
    if SHORTCUT:
        value += tl.load(shortcut + entry, mask=inside, other=0).to(tl.float32)
    if RELU:  # NaN stays NaN, as of PyTorch's: a diverged run is to be seen
        value = tl.where(value <= 0, 0.0, value)
    tl.store(x + entry, value.to(x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "each"])
def _backward(grad, y, result, sums, rows, each, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The gradient where the map, if any, is not 0, and its sums over `each` rows, of each channel."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(0).to(tl.int64) * each
    total = tl.zeros((COLUMNS,), tl.float32)
    start = 0
    while start < each:
        row = first + start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < CHANNELS)[None, :]
        place = row[:, None] * CHANNELS + column[None, :]
        passed = tl.load(grad + place, mask=inside, other=0).to(tl.float32)
        if y is not None:
            passed = tl.where(tl.load(y + place, mask=inside, other=0) <= 0, 0.0, passed)
            tl.store(result + place, passed.to(result.dtype.element_ty), mask=inside)
        total += tl.sum(passed, axis=0)
        start += ROWS
    tl.store(sums + tl.program_id(0) * CHANNELS + column, total, mask=column < CHANNELS)
