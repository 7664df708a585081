"""A convolution of stride 2 whose weights get their gradient on maps of one column too."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StridedConv2d(nn.Conv2d):
    """nn.Conv2d for kernels of 3×3 with padding 1 and stride 1 or 2.

    On a CPU in bfloat16 the gradient of the weights for stride 2 and a map of one column, such as P6 of images 64
    pixels wide, is whatever the memory held: a fault of oneDNN, with torch 2.11. A map of two columns is right, and
    one of zeros, as the padding beside it is, changes nothing else.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[-1] == 1 and self.stride == (2, 2) and _in_bfloat16_on_a_cpu(x):
            x = F.pad(x, (0, 1))
        return super().forward(x)


def _in_bfloat16_on_a_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and (x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))
