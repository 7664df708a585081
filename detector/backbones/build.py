"""The backbone that a configuration names."""

from detector.backbones.resnet import ResNet
from detector.config import ModelConfig


def build_backbone(model: ModelConfig, finest: int = 3) -> ResNet:
    """The backbone of the group `model`, with random weights; its finest map has a stride of 2**finest."""
    return ResNet(model.backbone, model.norm, model.frozen_stages, model.deformable, finest)
