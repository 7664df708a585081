"""The detector FCOS: losses of any batch, what centreness does, crowd regions, keys."""

import pytest
import torch

from detector import build_detector, build_references
from detector.families import model_settings
from detector.fcos.build import STRIDES
from engine.run.config import ConfigError, parse_config
from losses.overlaps import box_center

SMALL = {
    "family": "fcos",
    "backbone": "resnet18",
    "weights": None,
    "norm": "group",
    "frozen_stages": 0,
    "fpn_channels": 32,
    "head_convs": 1,
}


def make(loss: dict | None = None, data: dict | None = None, **model):
    torch.manual_seed(0)
    return build_detector({"model": SMALL | model, "loss": loss or {}, "data": data or {}}, 3)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["focal", "alrp", "ap", "rs", "dr"])
@pytest.mark.parametrize("objects", ["in both images", "in one image", "in none"])
def test_losses_of_any_batch_reach_every_parameter(make_target, images, name, objects):
    full, empty = make_target((5, 5, 50, 60), (60, 8, 90, 40), labels=(2, 0)), make_target()
    targets = {"in both images": [full, full], "in one image": [empty, full], "in none": [empty, empty]}[objects]
    detector = make({"name": name})
    losses = detector(images, targets)
    losses["loss"].backward()
    assert ("loss_centerness" in losses) == (name in ("focal", "ap", "dr")) == (detector.head.centerness is not None)
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
    for parameter_name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    if objects == "in none":
        assert losses["loss_loc"] == 0 and losses.get("loss_centerness", 0) == 0


def test_bfloat16_is_the_same_but_for_rounding(make_target, images):
    targets = [make_target((5, 5, 50, 60), labels=(2,))] * 2
    exact = make()(images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = make()(images, targets)
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32 and rounded[name].item() == pytest.approx(value.item(), rel=0.1)


def test_a_loss_trains_the_family_with_keys_of_its_own():
    assert parse_config({"model": {"family": "fcos"}}, "x").loss.name == "focal"
    config = parse_config({"model": {"family": "fcos"}}, "x", ["loss.name=ap"])
    assert config.loss.box_loss == "giou" and config.model.centerness == "box"
    config = parse_config({"model": {"family": "fcos"}}, "x", ["loss.name=alrp", "model.centerness=cls"])
    assert config.model.centerness == "cls"
    assert parse_config({"loss": {"name": "focal"}}, "x").loss.box_loss == "smooth_l1"


def test_keys_of_anchors_are_refused_by_name():
    for key in ("anchor_base_scale=2.0", "matcher=atss", "background_iou=0.3", "head_norm=group"):
        with pytest.raises(ConfigError, match=rf"model.{key.split('=')[0]}: model.family=fcos has no such key"):
            parse_config({"model": {"family": "fcos"}}, "x", [f"model.{key}"])
    with pytest.raises(ConfigError, match=r"model.centerness: model.family=retinanet has no such key"):
        parse_config({}, "x", ["model.centerness=cls"])
    with pytest.raises(ConfigError, match=r"model.range_limits: must be ascending"):
        parse_config({"model": {"family": "fcos"}}, "x", ["model.range_limits=[64, 32, 16, 8]"])


def test_it_starts_from_no_boxes():
    assert build_references(model_settings(SMALL)) is None and make().references is None


def test_a_crowd_region_is_background_or_ignored_in_its_class(make_target, images):
    target = make_target((0, 0, 96, 64), labels=(1,), crowd=(True,))
    ranked = []
    for crowd in ("background", "ignore"):
        detector = make(data={"crowd": crowd})
        logits = []
        loss = detector.objective.loss
        loss.of_matched = lambda matched, group, logits=logits, original=loss.of_matched: (
            logits.append(matched.targets) or original(matched, group)
        )
        detector(images, [target, target])
        ranked.append(logits[0].view(2, -1, 3))
    assert (ranked[0] == 0).all()
    assert (ranked[1][..., 1] == -1).any() and (ranked[1][..., [0, 2]] == 0).all()


def test_scores_are_roots_of_products_and_the_threshold_is_of_the_class(images):
    detector = make(score_thresh=0.0, prior=0.5, detections_per_img=10**6, nms_thresh=1.0, topk_candidates=10**6).eval()
    with torch.no_grad():
        cls_logits, _, centerness_logits, _ = detector.raw_outputs(images)
        product = cls_logits.sigmoid() * centerness_logits.sigmoid()[..., None]
        found = detector(images)
        torch.testing.assert_close(found[0]["scores"], product[0].sqrt().flatten().sort(descending=True).values)
        detector.postprocess.score_thresh = 0.5
        found = detector(images)
    assert len(found[0]["scores"]) == (cls_logits[0].sigmoid() > 0.5).sum()


def test_without_centreness_scores_are_those_of_classes(images):
    detector = make(centerness=None, score_thresh=0.0, prior=0.5, detections_per_img=7, nms_thresh=1.0).eval()
    with torch.no_grad():
        best = detector.raw_outputs(images)[0].sigmoid().flatten(1).topk(7).values
        found = detector(images)
    torch.testing.assert_close(torch.stack([image["scores"] for image in found]), best)


def test_images_need_sides_that_its_levels_divide(images):
    with pytest.raises(ValueError, match="pad both sides to multiples of 32"):
        make()(images[..., :60], [])
    with pytest.raises(ValueError, match="training needs targets"):
        make()(images)


def test_keys_of_points_reach_the_matcher():
    detector = make(center_radius=None, range_limits=[16.0, 32.0, 64.0, 128.0])
    matcher = detector.objective.matcher
    assert matcher.center_radius is None and matcher.range_limits == (16.0, 32.0, 64.0, 128.0)
    assert detector.objective.coding == detector.postprocess.coding


@pytest.mark.parametrize(("conventions", "share"), [("paper", 0.5), ("torchvision", 0.0)])
def test_points_lie_in_their_cells_as_the_convention_says(conventions, share):
    detector = make(conventions=conventions)
    for cells, stride in zip(detector.cells.of_image((128, 256)), STRIDES, strict=True):
        assert box_center(cells)[0].tolist() == [share * stride] * 2
        assert (cells[:, 2:] - cells[:, :2] == stride).all()
