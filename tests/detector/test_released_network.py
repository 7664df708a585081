"""The authors' network, rebuilt from a recipe, computes here what it computes there."""

import json
import re
import zlib

import numpy as np
import pytest
import torch

from detector import build_detector

NAME = "alrp_loss_retinanet_r50_fpn_100e_coco500"

# MMDetection's names to ours; a tower's convolutions alternate with ReLUs here
RENAMES = [
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"fpn.lateral_convs.\1."),
    (r"^neck\.fpn_convs\.3\.conv\.", "fpn.p6."),
    (r"^neck\.fpn_convs\.4\.conv\.", "fpn.p7."),
    (r"^neck\.fpn_convs\.(\d)\.conv\.", r"fpn.output_convs.\1."),
    (r"^bbox_head\.retina_cls\.", "head.cls_logits."),
    (r"^bbox_head\.retina_reg\.", "head.box_deltas."),
    (r"^bbox_head\.cls_convs\.(\d)\.conv\.", lambda m: f"head.cls_tower.{2 * int(m[1])}."),
    (r"^bbox_head\.reg_convs\.(\d)\.conv\.", lambda m: f"head.box_tower.{2 * int(m[1])}."),
]


def our_name(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def rebuilt(name: str, shape: list[int]) -> torch.Tensor:
    """The weight of that name, by the recipe of the shared README."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    value = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        value = 0.1 * value
        if name.endswith(".weight"):
            value = 1 + value
    else:
        value = value / value[0].numel() ** 0.5
    if name.endswith("bn3.weight"):
        value = value * 0.3
    if name == "bbox_head.retina_cls.bias":
        value = value - 3
    if name == "bbox_head.retina_reg.weight":
        value = value * 0.2
    return value


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / f"golden/network/{NAME}.npz")


@pytest.fixture(scope="module")
def detector(shared):
    shapes = json.loads((shared / f"golden/checkpoints/{NAME}.json").read_text())
    detector = build_detector({"loss": {"self_balance": False}}, 80, load_weights=False).eval()
    detector.load_state_dict({our_name(name): rebuilt(name, shape) for name, shape in shapes.items()})
    detector.pixel_mean.zero_()  # the stored input is normalised already
    detector.pixel_std.fill_(1.0)
    return detector


@pytest.fixture(scope="module")
def images(golden):
    generator = torch.Generator().manual_seed(golden["seed"].item())
    return torch.randn(tuple(golden["shape"]), generator=generator)


def test_maps_agree(detector, golden, images):
    with torch.no_grad():
        *outputs, anchors_per_level = detector.raw_outputs(images)
    first = 0
    for level, anchors in enumerate(anchors_per_level):
        for key, output in zip(("cls", "reg"), outputs, strict=True):
            shape = golden[f"{key}{level}_shape"].tolist()  # (1, anchors·width, h, w)
            maps = output[:, first : first + len(anchors)].reshape(1, *shape[2:], shape[1]).permute(0, 3, 1, 2)
            sample = maps.flatten()[torch.from_numpy(golden[f"{key}{level}_index"])]
            expected = torch.from_numpy(golden[f"{key}{level}_value"])
            torch.testing.assert_close(sample, expected, rtol=0.0, atol=1e-4)
        first += len(anchors)


def test_pyramid_levels_agree_in_the_mean(detector, golden, images):
    with torch.no_grad():
        pyramid = detector.fpn(detector.backbone(images))
    means = [level.abs().mean().item() for level in pyramid]
    assert means == pytest.approx(golden["p_absmean"].tolist(), rel=1e-5)


def test_detections_agree(detector, golden, images):
    (found,) = detector(images)
    assert found["labels"].tolist() == golden["labels"].tolist()
    torch.testing.assert_close(found["scores"], torch.from_numpy(golden["scores"]), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(found["boxes"], torch.from_numpy(golden["boxes"]), rtol=0.0, atol=1e-3)
