"""3×3 convolution with a quarter of the multiplications, for wide layers in float32 on a CPU.

Winograd's minimal filtering F(4×4, 3×3) (Lavin & Gray, arXiv:1509.09308): each tile of 4×4 outputs is computed from
6×6 inputs as Aᵀ[(G w Gᵀ) · (Bᵀ x B)]A, where the product over the channels is one matrix product for each of the 36
transformed places. PyTorch's convolution on a CPU is as fast as the arithmetic units; this asks less of them. Rounding
errors are about five times those of the direct sum, 4e-5 of the outputs' standard deviation at worst for 256 channels.

T: tiles of the batch. The transforms of both axes are one matrix: (Bᵀ ⊗ Bᵀ) and so on, over flattened tiles.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detector.contract import Detector

MIN_CHANNELS, MIN_TILES = 192, 64  # from which it is faster
TILE, REACH = 4, 6

# fmt: off
_B = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
      [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
_G = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
      [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
_A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
# fmt: on
INPUTS, WEIGHTS, OUTPUTS = (torch.kron(m, m).float() for m in (torch.tensor(t).double() for t in (_B, _G, _A)))


class WinogradConv2d(nn.Conv2d):
    """`nn.Conv2d` of kernel 3, stride 1 and padding 1, by Winograd's algorithm where that pays.

    Attributes:
        modes: values of `training` in which it may be used.
    """

    modes: frozenset[bool]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        if self.training not in self.modes or not _pays(x, self.weight):
            return super().forward(x)
        y = _Winograd.apply(x, self.weight)
        return y if self.bias is None else y + self.bias[:, None, None]


def use_winograd(detector: Detector, training: bool, evaluation: bool) -> None:
    """Swaps the algorithm into a detector on a CPU: into the 3×3 convolutions of its `winograd_parts`.

    Parameters and their names stay. Whether it pays depends on the tiles of the whole batch, so where it is used in
    evaluation, how many others are in an image's batch shows in the last digits of its detections.

    Args:
        training, evaluation: the modes of the detector in which to use it.
    """
    modes = frozenset(mode for mode, used in ((True, training), (False, evaluation)) if used)
    parts = [detector.get_submodule(name) for name in detector.winograd_parts if modes]
    for module in (module for part in parts for module in part.modules()):
        if type(module) is nn.Conv2d and _can_be_swapped(module):
            module.__class__ = WinogradConv2d  # as torch.nn.utils.parametrize does
            cast(WinogradConv2d, module).modes = modes


def _can_be_swapped(conv: nn.Conv2d) -> bool:
    plain = conv.padding_mode == "zeros" and conv.groups == 1 and conv.stride == conv.dilation == (1, 1)
    return plain and conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.weight.device.type == "cpu"


def _pays(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_exporting() or type(x) is not Tensor:  # a program that may run anywhere, or a dry run
        return False
    tiles = x.shape[0] * -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE)
    return min(weight.shape[:2]) >= MIN_CHANNELS and tiles >= MIN_TILES


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _convolve(grad, weight.flip(2, 3).transpose(0, 1))
        if ctx.needs_input_grad[1]:
            grad_outputs = (OUTPUTS.T @ _tiles(grad, TILE)).view(REACH**2, -1, grad.shape[1])  # (36, T, out)
            grad_products = torch.bmm(_transform_inputs(x).transpose(1, 2), grad_outputs)  # (36, in, out)
            grad_weight = (WEIGHTS.T @ grad_products.flatten(1)).view(3, 3, *weight.shape[1::-1]).permute(3, 2, 0, 1)
        return grad_x, grad_weight


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """(B, in, h, w) and (out, in, 3, 3) to (B, out, h, w), channels last in memory."""
    num_out, num_in = weight.shape[:2]
    height, width = x.shape[-2:]
    rows, columns = -(-height // TILE), -(-width // TILE)
    weights = (WEIGHTS @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, num_in, num_out)
    products = torch.bmm(_transform_inputs(x), weights)  # (36, T, out)
    tiles = (OUTPUTS @ products.flatten(1)).view(TILE, TILE, -1, rows, columns, num_out)
    y = tiles.permute(2, 3, 0, 4, 1, 5).reshape(-1, rows * TILE, columns * TILE, num_out)
    y = y[:, :height, :width].permute(0, 3, 1, 2)
    return y.contiguous(memory_format=torch.channels_last)


def _transform_inputs(x: Tensor) -> Tensor:
    """(B, in, h, w) to (36, T, in)."""
    return (INPUTS @ _tiles(x, REACH)).view(REACH**2, -1, x.shape[1])


def _tiles(x: Tensor, side: int) -> Tensor:
    """The tiles of that side, centred on those of 4×4, zero outside the map: (B, C, h, w) to (side², T·C)."""
    batch, channels, height, width = x.shape
    rows, columns, margin = -(-height // TILE), -(-width // TILE), (side - TILE) // 2
    below, right = rows * TILE - height + margin, columns * TILE - width + margin
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, margin, right, margin, below)).contiguous()
    image, row, column, channel = padded.stride()
    tiles = padded.as_strided(
        (side, side, batch, rows, columns, channels),
        (row, column, image, TILE * row, TILE * column, channel),
    )
    return tiles.reshape(side**2, -1)
