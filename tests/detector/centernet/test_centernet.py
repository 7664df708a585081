"""The detector CenterNet: losses of any batch, decoding, crowd regions, networks, keys."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from detector import build_detector, build_references
from detector.boxes import pairwise_iou
from detector.centernet.decode import Pairs, TripletDecoder, _best_center, _Points
from detector.centernet.head import Maps
from detector.centernet.soft_nms import soft_nms
from detector.centernet.targets import gaussian_radius, keypoint_targets
from detector.families import model_settings
from detector.monitor import Monitor
from detector.weights import load_detector_weights
from engine.run.config import ConfigError, parse_config

SCRATCH = {"weights": None, "norm": "group", "frozen_stages": 0}
SMALL = {"family": "centernet", "backbone": "resnet18", "fpn_channels": 32, **SCRATCH}
SIZE, MAP_SIZE = (64, 96), (16, 24)


def make(data: dict | None = None, **model):
    torch.manual_seed(0)
    return build_detector({"model": SMALL | model, "data": data or {}}, 3)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("objects", ["in both images", "in one image", "in none"])
def test_losses_of_any_batch_reach_every_parameter(make_target, images, objects):
    full, empty = make_target((5, 5, 50, 60), (60, 8, 90, 40), labels=(2, 0)), make_target()
    targets = {"in both images": [full, full], "in one image": [empty, full], "in none": [empty, empty]}[objects]
    detector = make()
    losses = detector(images, targets)
    losses["loss"].backward()
    assert losses.keys() == {"loss", "loss_cls", "loss_pull", "loss_push", "loss_loc"}
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if objects == "in none":
        assert losses["loss_loc"] == losses["loss_pull"] == losses["loss_push"] == 0


def test_bfloat16_is_the_same_but_for_rounding(make_target, images):
    targets = [make_target((5, 5, 50, 60), labels=(2,))] * 2
    exact = make()(images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = make()(images, targets)
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32 and rounded[name].item() == pytest.approx(value.item(), rel=0.15)


def test_the_monitor_counts_keypoints_and_hears_of_their_gradient(make_target, images):
    monitor = Monitor(detailed=True)
    targets = [make_target((5, 5, 50, 60), (60, 8, 90, 40)), make_target()]
    make()(images, targets, monitor=monitor)["loss"].backward()
    assert monitor.values["num_positives"] == 2 * 3
    assert monitor.values["num_negatives"] == 2 * 3 * 3 * 16 * 24 - 6
    assert monitor.values["grad_mass_positive"] > 0 and monitor.values["grad_mass_negative"] > 0


def drawn(targets, spread: float = 0.0) -> Maps:
    """Maps that say what the targets want; tags are the numbers of the objects."""
    wanted = keypoint_targets(targets, 3, SIZE, MAP_SIZE)
    logits = torch.where(wanted.heat == 1, 6.0, -6.0)
    tags, offsets = torch.zeros(len(targets), 2, *MAP_SIZE), torch.zeros(len(targets), 3, 2, *MAP_SIZE)
    for number, (image, cells, offset) in enumerate(zip(wanted.image, wanted.cells, wanted.offsets, strict=True)):
        for kind, (column, row) in enumerate(cells.tolist()):
            offsets[image, kind, :, row, column] = offset[kind]
            if kind < 2:
                tags[image, kind, row, column] = number + kind * spread
    return Maps(logits, tags, offsets)


def test_maps_as_wanted_are_decoded_to_the_objects(make_target):
    first = make_target((5.25, 5.5, 50, 60.75), (60, 8, 90, 40), (2, 30, 40, 50), labels=(2, 0, 2))
    second = make_target((10, 10, 80, 20), labels=(1,))
    found = TripletDecoder(score_thresh=0.5)(drawn([first, second], spread=0.4), [SIZE] * 2)
    for image, target in zip(found, (first, second), strict=True):
        nearest = pairwise_iou(target["boxes"], image["boxes"]).max(dim=1)
        assert len(image["boxes"]) == len(target["boxes"]) and (nearest.values > 0.999).all()
        assert torch.equal(image["labels"][nearest.indices], target["labels"])
        assert ((image["scores"] > 0.5) & (image["scores"] <= torch.tensor(6.0).sigmoid())).all()


def test_corners_of_unlike_tags_or_without_a_centre_make_no_box(make_target):
    targets = [make_target((5, 5, 50, 60), labels=(2,))]
    decoder = TripletDecoder(score_thresh=0.3)
    assert len(decoder(drawn(targets), [SIZE])[0]["scores"]) == 1
    assert len(decoder(drawn(targets, spread=0.6), [SIZE])[0]["scores"]) == 0
    maps = drawn(targets)
    maps.cls_logits[:, 2] = torch.where(maps.cls_logits[:, 2] > 0, -5.0, -6.0)  # a centre of next to no score
    assert decoder(maps, [SIZE])[0]["scores"].tolist() == pytest.approx([2 / 3], abs=0.01)
    maps.cls_logits[:, 2] = torch.linspace(-6, 6, MAP_SIZE[0])[:, None]  # peaks in the last row alone
    assert len(decoder(maps, [SIZE])[0]["scores"]) == 0


def test_boxes_are_clipped_and_dropped_from_five_pixels_outside_on(make_target):
    targets = [make_target((5, 5, 50, 60), labels=(2,))]
    decoder = TripletDecoder(score_thresh=0.5)
    (found,) = decoder(drawn(targets), [(56, 48)])
    assert found["boxes"].tolist() == [[5, 5, 48, 56]]
    assert len(decoder(drawn(targets), [(55, 48)])[0]["scores"]) == 0


def test_the_central_region_is_the_middle_third_or_fifth():
    # 90 × 60 pixels: strictly between 30 and 60, 20 and 40; 300 × 200: between 120 and 180, 80 and 120
    points = torch.tensor([[31.0, 39.0], [30.0, 30.0], [121.0, 119.0], [119.0, 100.0]])
    center = _Points(torch.tensor([[0.2, 0.9, 0.3, 0.8]]), torch.zeros(1, 4).long(), points[None], torch.zeros(1, 4))
    decoder_pairs = [((0, 0, 90, 60), 0), ((0, 0, 300, 200), 0), ((0, 0, 90, 60), 1)]
    boxes = torch.tensor([box for box, _ in decoder_pairs]).float()
    labels = torch.tensor([label for _, label in decoder_pairs])
    pairs = Pairs(boxes, torch.ones(3), labels, torch.zeros(3).long())
    assert _best_center(pairs, center).tolist() == pytest.approx([0.2, 0.3, -1])


def test_an_image_is_decoded_as_alone(images):
    detector = make().eval()
    with torch.no_grad():
        together, alone = detector(images), [*detector(images[:1]), *detector(images[1:])]
    for one, other in zip(together, alone, strict=True):
        assert 0 < len(one["scores"]) <= 100 and (one["scores"].diff() <= 0).all()
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-4, atol=1e-6)


def slow_soft_nms(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """One box after the other, as in the paper's pseudocode."""
    scores, left, result = scores.clone(), set(range(len(scores))), torch.zeros(len(scores))
    while left:
        best = max(left, key=lambda i: (scores[i].item(), -i))
        result[best] = scores[best]
        left.remove(best)
        for i in left:
            iou = pairwise_iou(boxes[best, None], boxes[i, None]).item()
            scores[i] *= torch.tensor(-(iou**2) / 0.5).exp()
    return result


def test_soft_nms_equals_the_pseudocode_in_every_group():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 5 + torch.rand(40, 2, generator=generator) * 30], dim=1)
    scores, groups = torch.rand(40, generator=generator), torch.randint(0, 3, (40,), generator=generator) * 4
    lowered = soft_nms(boxes, scores, groups)
    for group in groups.unique():
        own = groups == group
        torch.testing.assert_close(lowered[own], slow_soft_nms(boxes[own], scores[own]), rtol=1e-5, atol=1e-7)
    assert (lowered <= scores).all() and len(soft_nms(boxes[:0], scores[:0], groups[:0])) == 0


def test_radius_by_hand():
    # 20 × 10 cells: (30 + √(900 - 4 · 200 · 0.3 / 1.7)) / 2, (60 + √(3600 - 16 · 60)) / 2 and
    # (-42 + √(1764 + 11.2 · 60)) / 2
    ways = (30 + (900 - 800 * 0.3 / 1.7) ** 0.5) / 2, (60 + 2640**0.5) / 2, (-42 + 2436**0.5) / 2
    assert gaussian_radius(torch.tensor([[20.0, 10.0]])).item() == pytest.approx(min(ways), rel=1e-5)


def test_a_crowd_region_is_background_or_ignored_in_its_class(make_target):
    target = make_target((40, 8, 80, 40), (8, 8, 46, 46), labels=(1, 1), crowd=(False, True))
    plain, ignoring = (keypoint_targets([target], 3, SIZE, MAP_SIZE, ignore) for ignore in (False, True))
    assert len(plain.image) == len(ignoring.image) == 1 and (plain.heat >= 0).all()
    ignored = ignoring.heat[0] == -1
    assert not ignored[:, [0, 2]].any()
    inside = torch.zeros(MAP_SIZE, dtype=torch.bool)
    inside[2:11, 2:11] = True  # 44 to 46 covers half of the cells in row or column 11, but a quarter of the corner
    inside[11, 2:11] = inside[2:11, 11] = True
    assert torch.equal(ignored[1:, 1], inside.expand(2, -1, -1))
    inside[2, 10] = False  # the object's corner
    assert torch.equal(ignored[0, 1], inside)
    assert (ignoring.heat == 1).sum() == 3


def test_boxes_beyond_the_image_have_their_corners_in_its_last_cells(make_target):
    found = keypoint_targets([make_target((-9, -9, 200, 200), (95.5, 3, 96, 9))], 3, SIZE, MAP_SIZE)
    assert found.cells.tolist() == [[[0, 0], [23, 15], [11, 7]]]


def test_hourglass_52_has_the_published_size_and_stride():
    with FakeTensorMode():
        detector = build_detector({"model": SMALL | {"backbone": "hourglass52", "fpn_channels": 256}}, 80)
        maps = detector.eval().raw_outputs(torch.empty(1, 3, 96, 160))
    assert sum(parameter.numel() for parameter in detector.parameters()) == 104_844_152
    assert maps.cls_logits.shape == (1, 3, 80, 24, 40) and maps.tags.shape == (1, 2, 24, 40)


def test_fine_tuning_on_other_classes_starts_the_last_layers_of_the_heat_maps_afresh():
    other, detector = build_detector({"model": SMALL}, 5), make()
    skipped = load_detector_weights(detector, {"model": other.state_dict()})
    assert len(skipped) == 6 and set(skipped) == set(detector.class_head)
    assert torch.equal(detector.head.tags[0][2].weight, other.head.tags[0][2].weight)


def test_it_starts_from_no_boxes():
    assert build_references(model_settings(SMALL)) is None and make().references is None


def test_keys():
    config = parse_config({"model": {"family": "centernet"}}, "x")
    assert config.loss.name == "centernet" and config.model.score_thresh == 0.001
    with pytest.raises(ConfigError, match=r"loss.name: alrp does not go with model.family: centernet; centernet do"):
        parse_config({"model": {"family": "centernet"}}, "x", ["loss.name=alrp"])
    with pytest.raises(ConfigError, match=r"loss.name: centernet does not go with model.family: fcos"):
        parse_config({"model": {"family": "fcos"}}, "x", ["loss.name=centernet"])
    with pytest.raises(ConfigError, match=r"model.nms_thresh: model.family=centernet has no such key"):
        parse_config({"model": {"family": "centernet"}}, "x", ["model.nms_thresh=0.5"])
    with pytest.raises(ConfigError, match=r"command line: model.backbone: must be a ResNet, or have weights: null"):
        parse_config({"model": {"family": "centernet"}}, "x", ["model.backbone=hourglass52"])
    with pytest.raises(ConfigError, match=r"model.backbone: Input should be 'resnet18'"):
        parse_config({}, "x", ["model.backbone=hourglass52"])


def test_images_need_sides_that_the_backbone_divides(images):
    with pytest.raises(ValueError, match="pad both sides to multiples of 32"):
        make()(images[..., :60], [])
    with pytest.raises(ValueError, match="training needs targets"):
        make()(images)


@pytest.mark.parametrize("channels", [32, 96, 160, 224, 256])
@pytest.mark.parametrize("norm", ["frozen_batch", "group"])
def test_every_width_that_is_accepted_is_built(channels, norm):
    with torch.device("meta"):
        make(fpn_channels=channels, norm=norm)
