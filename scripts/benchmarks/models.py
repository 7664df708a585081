"""The same RetinaNet R-50 twice, torchvision's and ours, with the same weights, images and objects."""

import torch
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector import Detector, build_detector
from engine.run.config import load_config
from engine.tools.released import CONFIGS, convert

NUM_COLUMNS, NUM_CLASSES = 91, 80  # torchvision's ids of COCO have gaps
LOGIT_SPREAD = 1.15  # of the random class head: 2245 logits of a 500×833 image then pass the score threshold


def make_models(size: tuple[int, int], loss: str, device: torch.device) -> tuple[RetinaNet, Detector]:
    """torchvision's RetinaNet as it is with pretrained weights, three of five stages trained, and ours with the same.

    Args:
        size: (height, width) of the images; neither model resizes them.
        loss: `loss.name` of ours.
    """
    torch.manual_seed(0)
    # its retinanet_resnet50_fpn() freezes stages and BatchNorm for pretrained weights only
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    extra_levels = LastLevelP6P7(256, 256)
    backbone = _resnet_fpn_extractor(body, 3, returned_layers=[2, 3, 4], extra_blocks=extra_levels)
    peer = RetinaNet(backbone, NUM_COLUMNS, min_size=min(size), max_size=max(size))
    for module in peer.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # as with pretrained weights, for which `convert` is
    peer.head.classification_head.cls_logits.weight.data *= LOGIT_SPREAD
    state = convert("torchvision", peer.state_dict(), "torchvision")["model"]
    config = load_config(CONFIGS / "torchvision_r50.yaml", ["model.weights=null", f"loss.name={loss}"])
    own = build_detector(config, NUM_CLASSES, load_weights=False)
    own.load_state_dict({name: value for name, value in state.items() if "self_balance" not in name}, strict=False)
    # torch.nn.Module's annotations lack memory_format
    return peer.to(device), own.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def make_batch(batch_size: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Random images and eight objects in each."""
    generator = torch.Generator().manual_seed(1)
    height, width = size
    images = torch.rand(batch_size, 3, height, width, generator=generator)
    targets = []
    for _ in range(batch_size):
        corners = torch.rand(8, 2, 2, generator=generator).sort(dim=1).values
        boxes = corners * torch.tensor([width - 33.0, height - 33.0])
        boxes[:, 1] += 32
        labels = torch.randint(0, NUM_CLASSES, (8,), generator=generator)
        targets.append({"boxes": boxes.flatten(1), "labels": labels, "crowd": torch.zeros(8, dtype=torch.bool)})
    targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
    return images.to(device), targets
