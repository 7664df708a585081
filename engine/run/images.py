"""A batch of images on its way to the detector."""

import torch
from torch import Tensor


def to_network(images: Tensor, device: torch.device) -> Tensor:
    """(B, 3, H, W) images in 0..255, uint8 or float32, as detectors take them: float32 in 0..1, on their device.

    The copy waits for nobody where the memory is pinned. Channels are last in memory.
    """
    return (images.to(device, non_blocking=True) / 255).contiguous(memory_format=torch.channels_last)
