"""What follows a convolution: bias, shortcut and ReLU, on a GPU in one pass over the feature map in place of three."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.triton_support import passes_trial, triton_works

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def usable(x: Tensor, shortcut: Tensor | None = None) -> bool:
    """Whether the kernels can take over behind a convolution with this input, and this map to add to its output.

    torch.compile makes kernels of its own.
    """
    if not x.is_cuda or torch.compiler.is_compiling():
        return False
    maps = [x] if shortcut is None else [x, shortcut]
    fit = all(each.is_contiguous(memory_format=torch.channels_last) and each.dtype in TYPES for each in maps)
    return fit and _kernels_work(x.device)


def epilogue(x: Tensor, bias: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """ReLU of x plus a bias of its channels plus a map of its shape, by the kernels, in the memory of x.

    Args:
        x: (B, C, h, w) that nothing else needs, such as the output of a convolution. bias: (C,).
        shortcut: None or of the shape of x.
    """
    from detector.backbones.epilogue_triton import Epilogue

    x = x.contiguous(memory_format=torch.channels_last)
    return Epilogue.apply(x, bias, None if shortcut is None else shortcut.to(x.dtype))


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """x plus a bias of its channels, by the kernels, in the memory of x; arguments as of `epilogue`."""
    from detector.backbones.epilogue_triton import Bias

    return Bias.apply(x.contiguous(memory_format=torch.channels_last), bias)


def conv_bias(x: Tensor, conv: nn.Module) -> Tensor:
    """conv(x), whose bias the kernels add where they can take over."""
    if not isinstance(conv, nn.Conv2d) or conv.bias is None or not usable(x):
        return conv(x)
    return add_bias(F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups), conv.bias)


@cache
def _kernels_work(device: torch.device) -> bool:
    """Tries them once against PyTorch's operators, as no other part of a training would notice a wrong one."""
    if not triton_works(device):
        return False
    generator = torch.Generator("cpu").manual_seed(0)  # of its own: the run draws as it would have drawn

    def same_results() -> bool:
        results = []
        # the first use may be in inference mode, whose tensors have no gradients
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cuda", enabled=False):
            maps = torch.randn(2, 2, 48, 9, 7, generator=generator, device="cpu").to(device)
            x, shortcut = (each.contiguous(memory_format=torch.channels_last) for each in maps)
            bias = torch.randn(48, generator=generator, device="cpu").to(device)
            for function, plain in ((epilogue, add_bias), (by_operators, bias_by_operators)):
                inputs = [each.detach().clone().requires_grad_() for each in (x, bias, shortcut)]
                y = function(inputs[0] * 1, *inputs[1:]) + plain(inputs[0] * 1, inputs[1])
                results.append([y.detach(), *torch.autograd.grad((y * shortcut).sum(), inputs)])
        return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*results, strict=True))

    return passes_trial("bias and ReLU take slower operators", same_results, "their kernels give other numbers here")


def by_operators(x: Tensor, bias: Tensor, shortcut: Tensor) -> Tensor:
    """What `epilogue` gives, by PyTorch's operators."""
    return F.relu(x + bias[:, None, None] + shortcut)


def bias_by_operators(x: Tensor, bias: Tensor) -> Tensor:
    """What `add_bias` gives, by PyTorch's operators."""
    return x + bias[:, None, None]
