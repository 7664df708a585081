"""Classification and box heads, shared by all pyramid levels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detector.backbones.epilogue import conv_bias
from detector.towers import Tower, by_reference, initialise


class RetinaNetHead(nn.Module):
    """Two towers of 3×3 convolutions with ReLU, one ending in class logits and one in box offsets.

    Args:
        in_channels: channels of the pyramid, and of the towers.
        num_anchors: anchors per cell. num_classes: K.
        num_convs: convolutions before the last, in each tower.
        group_norm: GroupNorm after each of them, 32 groups of two channels or more. It is not in the paper, but weights
            this small leave hardly any signal in towers that start from scratch, and less in narrow ones.
        prior: score of every class and anchor before training (arXiv:1708.02002, section 4.1).
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        num_classes: int,
        num_convs: int = 4,
        group_norm: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls_tower = Tower(in_channels, num_convs, group_norm, bias=not group_norm)
        self.box_tower = Tower(in_channels, num_convs, group_norm, bias=not group_norm)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.box_deltas = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        initialise(self)
        assert self.cls_logits.bias is not None
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior) / prior))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predicts for all A anchors from the feature maps, level by level.

        Returns:
            cls_logits (B, A, K) and box_deltas (B, A, 4), in the order level, row, column, anchor of the cell; float32,
            but in training logits of half the digits as they come: some losses read them so.
        """
        cls_logits = [by_reference(conv_bias(self.cls_tower(x), self.cls_logits), self.num_classes) for x in features]
        box_deltas = [by_reference(conv_bias(self.box_tower(x), self.box_deltas), 4) for x in features]
        logits = torch.cat(cls_logits, dim=1)
        keep = self.training and logits.element_size() < 4
        return logits if keep else logits.float(), torch.cat(box_deltas, dim=1).float()
