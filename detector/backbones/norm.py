"""Normalisation layers of the backbone, by the name that the config gives them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector.backbones.epilogue import add_bias, epilogue, usable


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics are never updated: it normalises with the loaded ones in training too.

    The affine weight and bias still train (outside frozen stages), as in the released code, where BatchNorm
    layers are held in evaluation mode. Parameters and buffers have BatchNorm's names.
    """

    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def fold_into(self, conv_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (like the given one, outputs first) and bias (outputs,) of the convolution that does both at once."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return conv_weight * scale[:, None, None, None], self.bias - self.running_mean * scale


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Running means and variances that a forward pass updates, of the norms that are in training mode."""
    return [
        statistic
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        if not isinstance(module, FrozenBatchNorm2d)
        for statistic in (module.running_mean, module.running_var)
        if statistic is not None
    ]


def conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """norm(conv(x)); frozen BatchNorm is folded into a convolution without bias, so that no pass over the feature map
    remains of it, and nothing to keep for backward but x."""
    if not (isinstance(norm, FrozenBatchNorm2d) and isinstance(conv, nn.Conv2d)):
        return norm(conv(x))
    weight, bias = norm.fold_into(conv.weight)
    by_kernel = usable(x)
    out = F.conv2d(x, weight, None if by_kernel else bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return add_bias(out, bias) if by_kernel else out


def conv_norm_relu(x: Tensor, conv: nn.Module, norm: nn.Module, shortcut: Tensor | None = None) -> Tensor:
    """ReLU of `conv_norm`, plus a map of its shape if given, in the memory of its output, which no backward needs."""
    if isinstance(norm, FrozenBatchNorm2d) and isinstance(conv, nn.Conv2d) and usable(x, shortcut):
        weight, bias = norm.fold_into(conv.weight)
        out = F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        return epilogue(out, bias, shortcut)
    out = conv_norm(x, conv, norm)
    return (out if shortcut is None else out.add_(shortcut)).relu_()


def make_norm(norm: str, channels: int) -> nn.Module:
    """Normalisation layer for feature maps of that many channels.

    Args:
        norm: "frozen_batch"; "batch"; "sync_batch", which shares its statistics among the processes of a GPU
            run and is plain BatchNorm in a single process; or "group", 32 groups, independent of the batch.
    Raises:
        ValueError: unknown name.
    """
    if norm == "frozen_batch":
        return FrozenBatchNorm2d(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "sync_batch":
        return nn.SyncBatchNorm(channels)
    if norm == "group":
        return nn.GroupNorm(32, channels)
    raise ValueError(f"norm {norm!r}: use frozen_batch, batch, sync_batch or group")
