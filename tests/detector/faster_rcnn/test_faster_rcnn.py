"""The detector Faster R-CNN: losses of any batch in each of its forms, regions, samples, keys."""

import math

import pytest
import torch
from faster_rcnn_worker import SMALL

from detector import build_detector, build_references
from detector.boxes import PAPER_CODING, pairwise_iou
from detector.families import model_settings
from detector.faster_rcnn.faster_rcnn import FasterRCNN
from detector.faster_rcnn.regions import RegionPooler, Regions
from detector.faster_rcnn.sampling import SampledMatcher, Sampler
from detector.matcher import IGNORED, NEGATIVE, MaxIoUMatcher
from detector.monitor import Monitor
from engine.run.config import ConfigError, parse_config

PARTS = {"loss", "loss_cls_rpn", "loss_loc_rpn", "loss_cls_roi", "loss_loc_roi"}
FORMS = {
    "cross entropy and L1": {"name": "ce"},
    "with GIoU": {"name": "ce", "box_loss": "giou", "box_weight": 10.0},
    "alrp": {"name": "alrp"},
    "rs": {"name": "rs"},
}


def make(loss: dict | None = None, data: dict | None = None, num_classes: int = 3, **model) -> FasterRCNN:
    torch.manual_seed(0)
    return build_detector({"model": SMALL | model, "loss": loss or {}, "data": data or {}}, num_classes)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batches(make_target):
    full, empty = make_target((5, 5, 50, 60), (60, 8, 90, 40), labels=(2, 0)), make_target()
    return {"in both images": [full, full], "in one image": [empty, full], "in none": [empty, empty]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("objects", ["in both images", "in one image", "in none"])
def test_losses_of_any_batch_reach_every_parameter(batches, images, form, objects):
    detector = make(FORMS[form])
    losses = detector(images, batches[objects])
    losses["loss"].backward()
    assert losses.keys() == PARTS
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if objects == "in none":
        assert losses["loss_loc_rpn"] == losses["loss_loc_roi"] == 0
    assert set(detector.balances()) == ({"rpn", "roi"} if form == "alrp" else set())


def test_the_loss_is_the_weighted_sum_of_its_parts(batches, images):
    for loss, weights in (
        ({"name": "ce"}, (1, 1, 1, 1)),
        ({"name": "ce", "box_loss": "giou", "box_weight": 10.0}, (1, 1, 1, 10)),
        ({"name": "alrp"}, (0.2, 0.2 * 50, 1, 50)),
    ):
        losses = make(loss)(images, batches["in both images"])
        parts = [losses[name].item() for name in ("loss_cls_rpn", "loss_loc_rpn", "loss_cls_roi", "loss_loc_roi")]
        assert min(parts) > 0
        expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_each_head_balances_itself(batches, images):
    detector = make({"name": "alrp", "balance_every": 1})
    losses = {name: value.item() for name, value in detector(images, batches["in both images"]).items()}
    detector.after_step(losses, 1, 100)
    for head in ("rpn", "roi"):
        cls, loc = losses[f"loss_cls_{head}"], losses[f"loss_loc_{head}"]
        assert detector.state_numbers()[f"self_balance_{head}"].item() == pytest.approx((cls + loc) / loc)


def test_bfloat16_is_the_same_but_for_rounding(batches, images):
    every = {"rpn_samples": None, "roi_samples": None}
    exact = make(**every)(images, batches["in both images"])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = make(**every)(images, batches["in both images"])
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32 and rounded[name].item() == pytest.approx(value.item(), rel=0.1)


def test_objects_that_no_anchor_fits_have_positive_anchors_all_the_same(make_target, images):
    targets = [make_target((10, 10, 30, 30), labels=(1,))] * 2
    detector = make({"name": "alrp"}, anchor_base_scale=32.0)  # from 128 pixels, of IoU 0.03 at most
    assert detector(images, targets)["loss_cls_rpn"] > 0.1
    detector.objective.rpn.matcher = MaxIoUMatcher(0.7, 0.3, best_from=0.3)  # as released
    assert all(value == 0 for value in detector(images, targets).values())


def test_keys_of_its_forms_come_with_the_loss():
    assert parse_config({"model": {"family": "faster_rcnn"}}, "x").loss.name == "ce"
    baseline = parse_config({"model": {"family": "faster_rcnn"}}, "x").model
    assert (baseline.rpn_samples, baseline.roi_samples, baseline.append_objects, baseline.rpn_weight) == (
        256,
        512,
        True,
        1,
    )
    for name, append_objects in (("alrp", False), ("rs", True)):
        ranked = parse_config({"model": {"family": "faster_rcnn"}}, "x", [f"loss.name={name}"]).model
        assert (ranked.rpn_samples, ranked.roi_samples, ranked.rpn_weight, ranked.rpn_prior) == (None, None, 0.2, 0.01)
        assert ranked.append_objects == append_objects
    assert parse_config({}, "x", ["loss.name=alrp"]).model.prior == 0.01  # and none of RetinaNet's


def test_losses_and_keys_of_other_families_are_refused():
    for name in ("focal", "ap", "dr"):
        with pytest.raises(ConfigError, match=rf"loss.name: {name} does not go with model.family: faster_rcnn"):
            parse_config({"model": {"family": "faster_rcnn"}}, "x", [f"loss.name={name}"])
    for family in ("retinanet", "fcos"):
        with pytest.raises(ConfigError, match=rf"loss.name: ce does not go with model.family: {family}"):
            parse_config({"model": {"family": family}}, "x", ["loss.name=ce"])
    for key in ("prior=0.1", "topk_candidates=10", "head_norm=group"):
        with pytest.raises(ConfigError, match=rf"model.{key.split('=')[0]}: model.family=faster_rcnn has no such key"):
            parse_config({"model": {"family": "faster_rcnn"}}, "x", [f"model.{key}"])


def test_its_references_are_the_anchors_of_five_levels():
    references = build_references(model_settings(SMALL))
    sides = [2 ** (4 + level) for level in range(5)]
    assert references.level_names == ("P2", "P3", "P4", "P5", "P6")
    for boxes, side, stride in zip(references.boxes((64, 96)), sides, (4, 8, 16, 32, 64), strict=True):
        assert len(boxes) == 3 * (-(-64 // stride)) * (-(-96 // stride))
        assert torch.allclose((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), torch.tensor(side**2.0))


def test_samples_are_up_to_a_share_of_positives_and_negatives_for_the_rest():
    torch.manual_seed(0)
    matches = torch.full((3, 100), NEGATIVE)
    matches[0, :40] = 7  # more than may be drawn
    matches[1, :3] = 5  # fewer
    matches[2, 10:] = IGNORED  # and too few of all
    drawn = Sampler(16, 0.25)(matches)
    assert (drawn >= 0).sum(1).tolist() == [4, 3, 0] and (drawn == NEGATIVE).sum(1).tolist() == [12, 13, 10]
    kept = drawn != IGNORED
    assert torch.equal(drawn[kept], matches[kept])
    assert not torch.equal(Sampler(16, 0.25)(matches), drawn)
    torch.manual_seed(0)
    assert torch.equal(Sampler(16, 0.25)(matches), drawn)


def test_every_box_is_drawn_equally_often():
    torch.manual_seed(0)
    matches = torch.full((4000, 20), NEGATIVE)
    matches[:, :5] = 0
    counts = (Sampler(8, 0.25)(matches) != IGNORED).float().mean(dim=0)
    torch.testing.assert_close(counts[:5], torch.full((5,), 2 / 5), rtol=0, atol=0.03)
    torch.testing.assert_close(counts[5:], torch.full((15,), 6 / 15), rtol=0, atol=0.03)


def test_regions_are_matched_in_their_own_image_and_padding_is_none():
    matcher = SampledMatcher(MaxIoUMatcher(0.5, 0.5, best_from=None), None)
    proposals = torch.tensor(
        [[[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4]], [[20.0, 20, 30, 30], [0, 0, 10, 10], [0] * 4]]
    )
    objects = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]], [[20.0, 20, 30, 30], [0.0, 0, 4, 4]]])
    # IoU 1, 0.6 and 0.4 in the first image; in the second 1, 0.16 and nothing
    assert matcher([proposals], objects).tolist() == [[0, 0, NEGATIVE], [0, NEGATIVE, IGNORED]]


@pytest.mark.parametrize("append_objects", [True, False])
def test_objects_are_regions_where_the_form_says_so(batches, append_objects):
    detector = make({"name": "alrp"}, append_objects=append_objects)
    proposals = torch.tensor([[[0.0, 0, 60, 20]], [[0.0, 0, 20, 20]]])
    found = detector.objective.roi.match(proposals, batches["in both images"], 3)
    assert len(found.regions.boxes) == (6 if append_objects else 2)
    assert len(found.rows) == (4 if append_objects else 0)
    assert torch.equal(found.regions.boxes[found.rows], found.gt_boxes)
    assert found.cls_targets.flatten().nonzero().flatten().tolist() == found.entries.tolist()


@pytest.mark.parametrize("name", ["ce", "alrp"])
def test_a_crowd_region_is_background_or_ignored_in_its_class(make_target, name):
    target = make_target((0, 0, 40, 40), labels=(1,), crowd=(True,))
    proposals = torch.tensor([[[0.0, 0, 30, 30], [50, 10, 90, 60]]])
    for crowd, first in (("background", [0, 0, 0]), ("ignore", [0, -1, 0])):
        detector = make({"name": name}, {"crowd": crowd})
        found = detector.objective.roi.match(proposals, [target], 3)
        assert found.cls_targets.tolist() == [first, [0, 0, 0]]
        logits, box_deltas = torch.zeros(2, 3), torch.zeros(2, 3, 4)
        logits[0] = 5.0  # costs something unless the region is ignored
        loss = detector.objective.roi(logits, box_deltas, found)["loss_cls"]
        if name == "ce":  # a softmax cannot leave a single class out
            rows = [math.log(4)] if crowd == "ignore" else [math.log(1 + 3 * math.exp(5)), math.log(4)]
            assert loss.item() == pytest.approx(sum(rows) / len(rows))


def test_regions_are_pooled_from_the_level_of_their_size():
    # 112² is the first size of the second level, 223² the last
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 4000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert RegionPooler().levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_pooling_a_ramp_gives_its_values_in_the_middle_of_bins():
    column = torch.arange(32.0) * 4 + 2  # centres of the cells of stride 4
    ramp = column.expand(1, 1, 32, 32)
    pooled = RegionPooler((4,))([ramp], Regions(torch.tensor([[16.0, 16, 72, 72]]), torch.tensor([0])))
    expected = 16 + 8 * (torch.arange(7.0) + 0.5)
    torch.testing.assert_close(pooled, expected.expand(1, 1, 7, 7))


def test_proposals_are_clipped_and_far_apart(images):
    detector = make().eval()
    with torch.no_grad():
        _, logits, box_deltas, anchors = detector.raw_outputs(images)
        proposals = detector.proposer(logits, box_deltas, anchors, [(64, 96), (50, 70)], training=False)
    first, second = (boxes[boxes.any(dim=1)] for boxes in proposals)
    assert first[:, 2].max() == 96 and second[:, 2].max() == 70 and second[:, 3].max() == 50 and proposals.min() == 0
    # within a level none overlaps another by more than the threshold; anchors of two levels may
    assert len(first) > 50
    few = detector.proposer._replace(number=5)(logits, box_deltas, anchors, [(64, 96), (50, 70)], training=False)
    assert torch.equal(few[0], first[:5])


def test_scores_of_a_softmax_leave_a_share_to_background(images):
    for loss, total in (({"name": "ce"}, 3 / 4), ({"name": "alrp"}, 3 / 2)):
        detector = make(loss, score_thresh=0.0, nms_thresh=1.0, detections_per_img=10**6).eval()
        torch.nn.init.zeros_(detector.roi_head.cls_logits.weight)
        with torch.no_grad():
            found = detector(images)[0]
        assert len(found["scores"]) % 3 == 0
        torch.testing.assert_close(found["scores"], torch.full_like(found["scores"], total / 3))


def test_the_first_head_alone_is_monitored_beside_the_second(batches, images):
    detector, monitor = make({"name": "alrp"}), Monitor(detailed=True)
    detector(images, batches["in both images"], monitor=monitor)["loss"].backward()
    references = build_references(model_settings(SMALL))
    anchors = references.boxes((64, 96))
    expected = sum((references.match(anchors, t["boxes"]) >= 0).sum() for t in batches["in both images"])
    assert monitor.values["num_positives_rpn"] == expected
    assert monitor.values["num_positives"] == monitor.values["positives_per_level"].sum()
    assert monitor.values["num_objects"] == 4
    best = [pairwise_iou(target["boxes"], torch.cat(anchors)).amax(dim=1) for target in batches["in both images"]]
    torch.testing.assert_close(monitor.values["sum_reference_iou"].float(), torch.cat(best).sum())


def test_images_need_sides_that_its_levels_divide(images):
    with pytest.raises(ValueError, match="pad both sides to multiples of 32"):
        make()(images[..., :60], [])
    with pytest.raises(ValueError, match="training needs targets"):
        make()(images)


def test_the_pyramid_has_five_levels_and_the_last_is_every_second_pixel(images):
    detector = make().eval()
    with torch.no_grad():
        features, logits, box_deltas, anchors = detector.raw_outputs(images)
    assert [tuple(x.shape[1:]) for x in features] == [(32, 16, 24), (32, 8, 12), (32, 4, 6), (32, 2, 3), (32, 1, 2)]
    assert torch.equal(features[4], features[3][:, :, ::2, ::2])
    number = 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
    assert logits.shape == (2, number, 1) and box_deltas.shape == (2, number, 4)
    assert sum(map(len, anchors)) == number


def test_config_reaches_the_parts():
    keys = {"rpn_samples": 64, "rpn_positive_share": 0.4, "roi_samples": 32, "roi_positive_share": 0.1}
    detector = make({"name": "ce", "box_loss": "giou", "box_weight": 10.0}, rpn_prior=0.1, **keys)
    rpn, roi = detector.objective.rpn, detector.objective.roi
    assert rpn.matcher.sampler == Sampler(64, 0.4) and roi.matcher.sampler == Sampler(32, 0.1)
    assert rpn.tau == 0.7 and (rpn.matcher.matcher.positive_iou, rpn.matcher.matcher.negative_iou) == (0.7, 0.3)
    assert (rpn.loss.settings.box_loss, roi.loss.settings.box_loss) == ("smooth_l1", "giou")
    assert detector.proposer.coding == rpn.coding and rpn.coding.stds == (1.0, 1.0, 1.0, 1.0)
    assert detector.postprocess.coding == roi.coding == PAPER_CODING
    torch.testing.assert_close(detector.head.logits.bias.sigmoid(), torch.full((3,), 0.1))
    ranked = make({"name": "alrp"}, {"crowd": "ignore"})
    assert ranked.proposer.coding == ranked.objective.rpn.coding == PAPER_CODING
    assert ranked.objective.rpn.ignore_crowd and ranked.objective.roi.ignore_crowd


@pytest.mark.parametrize(("convention", "aligned"), [("paper", True), ("torchvision", False)])
def test_pooling_follows_the_convention_of_boxes(convention, aligned):
    assert make(box_convention=convention).pooler.aligned == aligned


def test_training_takes_more_candidates(images, batches):
    detector, training = make(), []
    proposer = detector.proposer
    detector.proposer = lambda *arguments: training.append(arguments[-1]) or proposer(*arguments)
    detector(images, batches["in both images"])
    detector.eval()(images)
    assert training == [True, False]
