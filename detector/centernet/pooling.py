"""Corner and centre pooling (arXiv:1808.01244 and 1904.08189): what lies along the sides of a box, seen from a corner.

Each pool is a running maximum. Its gradient goes to the first maximum that is met on the way, as in the released code;
that of torch.cummax goes to the last.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from detector.backbones.norm import make_norm

Pool = Callable[[Tensor], Tensor]

ROWS, COLUMNS = 2, 3  # axes of (B, C, h, w)


def top_pool(x: Tensor) -> Tensor:
    """Maximum of each cell and of all below it: (B, C, h, w) to the same shape."""
    return _running_maximum(x.flip(ROWS), ROWS).flip(ROWS)


def bottom_pool(x: Tensor) -> Tensor:
    """Maximum of each cell and of all above it: (B, C, h, w) to the same shape."""
    return _running_maximum(x, ROWS)


def left_pool(x: Tensor) -> Tensor:
    """Maximum of each cell and of all to the right of it: (B, C, h, w) to the same shape."""
    return _running_maximum(x.flip(COLUMNS), COLUMNS).flip(COLUMNS)


def right_pool(x: Tensor) -> Tensor:
    """Maximum of each cell and of all to the left of it: (B, C, h, w) to the same shape."""
    return _running_maximum(x, COLUMNS)


def _running_maximum(x: Tensor, dim: int) -> Tensor:
    """Maximum of each cell and of those before it; not a number from the first such cell on."""
    maximum = x.detach().cummax(dim).values
    if not x.requires_grad:
        return maximum
    size = x.shape[dim]
    risen = ~(maximum.narrow(dim, 1, size - 1) <= maximum.narrow(dim, 0, size - 1))  # also where it is not a number
    place = torch.arange(1, size, device=x.device).view(-1, *[1] * (x.dim() - 1 - dim))
    place = torch.cat([torch.zeros_like(x.narrow(dim, 0, 1), dtype=torch.int64), place * risen], dim)
    return x.gather(dim, place.cummax(dim).values)


def make_conv_norm_relu(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    """3×3 convolution without bias, normalisation and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, branch_norm(norm, out_channels), nn.ReLU(inplace=True))


def branch_norm(norm: str, channels: int) -> nn.Module:
    """Normalisation of layers that start from scratch, by the name of the backbone's: GroupNorm beside a frozen one."""
    if norm in ("group", "frozen_batch"):
        groups = min(32, channels // 2)
        return nn.GroupNorm(groups if channels % groups == 0 else math.gcd(32, channels), channels)
    return make_norm(norm, channels)


class Pooling(nn.Module):
    """End of both poolings: what was pooled, beside a shortcut.

    Args:
        channels: of the input and of the output. inner: of what is pooled. norm: see `branch_norm`.
    """

    def __init__(self, channels: int, inner: int, norm: str) -> None:
        super().__init__()
        self.merge = nn.Conv2d(inner, channels, 3, padding=1, bias=False)
        self.merge_norm = branch_norm(norm, channels)
        self.shortcut = nn.Conv2d(channels, channels, 1, bias=False)
        self.shortcut_norm = branch_norm(norm, channels)
        self.out = make_conv_norm_relu(channels, channels, norm)

    def add(self, x: Tensor, pooled: Tensor) -> Tensor:
        """(B, channels, h, w) and (B, inner, h, w) to the branch's map (B, channels, h, w)."""
        merged = self.merge_norm(self.merge(pooled))
        return self.out((merged + self.shortcut_norm(self.shortcut(x))).relu())


class CornerPooling(Pooling):
    """Cascade corner pooling: along a side of the box, after a look from that side into it.

    Args:
        along_rows, along_columns: the pools of the corner: top and left, or bottom and right.
        others: see `Pooling`.
    """

    def __init__(self, channels: int, inner: int, norm: str, along_rows: Pool, along_columns: Pool) -> None:
        super().__init__(channels, inner, norm)
        self.along_rows, self.along_columns = along_rows, along_columns
        self.row_in, self.row_look, self.column_in, self.column_look = (
            make_conv_norm_relu(channels, inner, norm) for _ in range(4)
        )
        self.row_conv = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.column_conv = nn.Conv2d(inner, inner, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        rows = self.along_rows(self.row_conv(self.row_in(x) + self.along_columns(self.row_look(x))))
        columns = self.along_columns(self.column_conv(self.column_in(x) + self.along_rows(self.column_look(x))))
        return self.add(x, rows + columns)


class CenterPooling(Pooling):
    """Maximum of the cell's whole column, and of its whole row. See `Pooling` for the arguments."""

    def __init__(self, channels: int, inner: int, norm: str) -> None:
        super().__init__(channels, inner, norm)
        self.column_in = make_conv_norm_relu(channels, inner, norm)
        self.row_in = make_conv_norm_relu(channels, inner, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        # equal maxima are zeros of the ReLU, through which no gradient goes, so it is not asked which is the first
        columns = self.column_in(x).amax(dim=ROWS, keepdim=True)
        rows = self.row_in(x).amax(dim=COLUMNS, keepdim=True)
        return self.add(x, columns + rows)
