"""The two heads of Faster R-CNN: one that proposes, on every pyramid level, and one that classifies pooled regions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.towers import by_reference, initialise
from losses.precision import at_least_float32

POOLED_SIDE = 7  # of a region, as of the maps that the second head takes


class RPNHead(nn.Module):
    """One 3×3 convolution with ReLU, then logits and offsets of every anchor, shared by all levels.

    Args:
        channels: of the pyramid. num_anchors: anchors per cell.
        prior: score of every anchor before training.
    """

    def __init__(self, channels: int, num_anchors: int, prior: float = 0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.logits = nn.Conv2d(channels, num_anchors, 1)
        self.box_deltas = nn.Conv2d(channels, num_anchors * 4, 1)
        initialise(self)
        nn.init.constant_(self.get_parameter("logits.bias"), -math.log((1 - prior) / prior))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predicts for all A anchors from the feature maps, level by level; float32 at least.

        Returns:
            logits (B, A, 1) and box_deltas (B, A, 4), in the order level, row, column, anchor of the cell.
        """
        hidden = [F.relu(self.conv(x)) for x in features]
        logits = [by_reference(self.logits(x), 1) for x in hidden]
        box_deltas = [by_reference(self.box_deltas(x), 4) for x in hidden]
        return at_least_float32(torch.cat(logits, dim=1)), at_least_float32(torch.cat(box_deltas, dim=1))


class RoIHead(nn.Module):
    """Two fully connected layers with ReLU, then logits of the classes and offsets for each of them.

    Args:
        in_channels: of the pooled maps. channels: of the layers. num_classes: K.
        softmax: background has an output too, the last, of which the logits of the classes are relative.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, softmax: bool) -> None:
        super().__init__()
        self.num_classes, self.softmax = num_classes, softmax
        self.fc1 = nn.Linear(in_channels * POOLED_SIDE**2, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.cls_logits = nn.Linear(channels, num_classes + softmax)
        self.box_deltas = nn.Linear(channels, num_classes * 4)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.cls_logits.weight, std=0.01)
        nn.init.normal_(self.box_deltas.weight, std=0.001)
        for layer in (self.fc1, self.fc2, self.cls_logits, self.box_deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts for R regions from their maps (R, C, 7, 7); float32 at least.

        Returns:
            cls_logits (R, K), before the sigmoid, or with softmax less that of background; box_deltas (R, K, 4).
        """
        hidden = F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))
        logits = at_least_float32(self.cls_logits(hidden))
        if self.softmax:
            logits = logits[:, :-1] - logits[:, -1:]
        return logits, at_least_float32(self.box_deltas(hidden)).view(-1, self.num_classes, 4)
