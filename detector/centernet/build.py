"""Config to CenterNet."""

from torch import nn

from detector.backbones.build import build_backbone
from detector.backbones.hourglass import Hourglass
from detector.backbones.resnet import ResNet
from detector.centernet.centernet import CenterNet
from detector.centernet.config import CenterNetConfig
from detector.centernet.decode import TripletDecoder
from detector.centernet.head import CenterNetHead
from detector.centernet.neck import FinestMap
from detector.centernet.objective import CenterNetObjective
from losses.centernet import CenterNetLoss
from losses.loss import LossSettings
from losses.table import build_loss


def build_centernet(model: CenterNetConfig, loss: LossSettings, num_classes: int, ignore_crowd: bool) -> CenterNet:
    """CenterNet as configured, with random weights."""
    backbone: Hourglass | ResNet
    neck: nn.Module
    if model.backbone == "hourglass52":
        backbone = Hourglass(model.norm)
        neck, channels = nn.Identity(), backbone.out_channels[0]
    else:
        backbone = build_backbone(model, finest=2)
        neck, channels = FinestMap(backbone.out_channels, model.fpn_channels), model.fpn_channels
    head = CenterNetHead(channels, num_classes, model.fpn_channels, model.norm)
    keypoint_loss = build_loss(loss)
    assert isinstance(keypoint_loss, CenterNetLoss)  # the only one that the family takes
    decoder = TripletDecoder(model.score_thresh, model.topk_candidates, model.detections_per_img)
    return CenterNet(backbone, neck, head, CenterNetObjective(keypoint_loss, ignore_crowd), decoder)
