"""Faster R-CNN beside the authors' code and torchvision: losses and gradients of both heads, proposals, detections."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detector.assignment import assign_targets
from detector.boxes import PAPER_CODING, TORCHVISION_CODING, BoxCoding
from detector.config import loss_settings
from detector.faster_rcnn.build import ROI_POSITIVE_IOU, RPN_NEGATIVE_IOU, RPN_POSITIVE_IOU
from detector.faster_rcnn.objective import MatchedRegions, RegionObjective, as_one_class
from detector.faster_rcnn.postprocess import RegionPostProcessor
from detector.faster_rcnn.proposals import Proposer
from detector.faster_rcnn.regions import RegionPooler, Regions
from detector.faster_rcnn.sampling import SampledMatcher
from detector.matcher import IGNORED, NEGATIVE, MaxIoUMatcher
from detector.objectives import MatchedObjective
from losses.table import build_loss

RPN_WEIGHT = 0.2  # in the authors' numbers of the first head
PLAIN_CODING = BoxCoding(stds=(1.0, 1.0, 1.0, 1.0))
L1, SMOOTH_L1, GIOU = {}, {"smooth_l1_beta": 1 / 9}, {"box_loss": "giou", "box_weight": 10.0}

Golden = dict[str, np.ndarray]


def load(shared, name: str) -> Golden:
    return dict(np.load(shared / f"golden/faster_rcnn/{name}.npz"))


def doubles(golden: Golden, *names: str) -> list[Tensor]:
    return [torch.from_numpy(golden[name]).double().requires_grad_() for name in names]


def targets_of(golden: Golden) -> list[dict[str, Tensor]]:
    boxes = torch.from_numpy(golden["boxes"])
    labels = torch.from_numpy(golden["box_labels"]).long() if "box_labels" in golden else torch.zeros(len(boxes)).long()
    counts = golden["num_boxes"].tolist()
    return [
        {"boxes": b, "labels": k, "crowd": torch.zeros(len(b), dtype=torch.bool)}
        for b, k in zip(boxes.split(counts), labels.split(counts), strict=True)
    ]


def close(got: Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(got, torch.from_numpy(expected).double(), rtol=0, atol=tolerance)


def indices(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(golden[name]).long()


@pytest.mark.parametrize("name", ["alrp_rpn", "alrp_rpn_one_image_empty"])
def test_first_head_with_alrp(shared, name):
    golden = load(shared, name)
    logits, box_deltas = doubles(golden, "logits", "box_deltas")
    matcher = MaxIoUMatcher(RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU, best_from=0.3)  # as released
    anchors, targets = torch.from_numpy(golden["anchors"]).double(), targets_of(golden)
    found = assign_targets(matcher, [anchors], targets, 1, ignore_crowd=False)
    assert torch.equal(found.cls_targets[..., 0], torch.from_numpy(golden["targets"]))

    loss = build_loss(loss_settings({"name": "alrp"}))
    objective = MatchedObjective(matcher, loss, False, PAPER_CODING, RPN_POSITIVE_IOU)
    parts = objective(logits[..., None], box_deltas, [anchors], as_one_class(targets))
    for part in ("loss_cls", "loss_loc"):
        assert RPN_WEIGHT * parts[part].item() == pytest.approx(golden[part].item(), abs=1e-6)
    expected = torch.zeros(logits.numel(), dtype=torch.float64)
    expected[indices(golden, "grad_logits_index")] = torch.from_numpy(golden["grad_logits"])
    (of_logits,) = torch.autograd.grad(RPN_WEIGHT * parts["loss_cls"], logits)
    close(of_logits.flatten(), expected.numpy(), 1e-6)
    (of_deltas,) = torch.autograd.grad(RPN_WEIGHT * parts["loss_loc"], box_deltas)
    close(of_deltas.flatten(0, 1)[indices(golden, "positives")], golden["grad_deltas"], 1e-6)


def sampled(golden: Golden) -> Tensor:
    """(B, A) matches of the anchors that were drawn."""
    drawn = [indices(golden, f"sampled_{kind}") for kind in ("positive", "negative")]
    shape = golden["logits"].shape
    matches = torch.full(shape, IGNORED).flatten().index_fill(0, drawn[1], NEGATIVE)
    if "matches" in golden:  # 1 + object
        return matches.index_copy(0, drawn[0], indices(golden, "matches").flatten()[drawn[0]] - 1).view(shape)
    # torchvision names the boxes themselves
    boxes, first = torch.from_numpy(golden["boxes"]).double().split(golden["num_boxes"].tolist()), 0
    for image, own in enumerate(boxes):
        here = drawn[0][drawn[0] // shape[1] == image]
        wanted = torch.from_numpy(golden["target_boxes"])[first : first + len(here)]
        objects, first = (wanted[:, None] == own).all(dim=2).nonzero()[:, 1], first + len(here)
        matches[here] = objects
    return matches.view(shape)


@pytest.mark.parametrize(
    ("name", "box_loss", "tolerance"),
    [
        ("l1_rpn", L1, 1e-10),
        ("l1_rpn_image_without_objects", L1, 1e-10),
        ("tv_rpn", SMOOTH_L1, 1e-12),
        ("tv_rpn_image_without_objects", SMOOTH_L1, 1e-12),
    ],
)
def test_first_head_of_the_baselines(shared, name, box_loss, tolerance):
    golden = load(shared, name)
    logits, box_deltas = doubles(golden, "logits", "box_deltas")
    loss = build_loss(loss_settings({"name": "ce", **box_loss}))
    objective = MatchedObjective(lambda *_: sampled(golden), loss, False, PLAIN_CODING, RPN_POSITIVE_IOU)
    anchors = torch.from_numpy(golden["anchors"]).double()
    parts = objective(logits[..., None], box_deltas, [anchors], as_one_class(targets_of(golden)))
    # the authors count an image without positives as one more
    excess = 129 / 128 if name == "l1_rpn_image_without_objects" else 1
    assert parts["loss_cls"].item() == pytest.approx(golden["loss_cls"].item() * excess, abs=tolerance)
    assert parts["loss_loc"].item() == pytest.approx(golden["loss_loc"].item() * excess, abs=tolerance)
    parts["loss"].backward()
    drawn = [indices(golden, f"sampled_{kind}") for kind in ("positive", "negative")]
    assert logits.grad.count_nonzero() == len(golden["grad_logits"])
    close(logits.grad.flatten()[torch.cat(drawn)], golden["grad_logits"] * excess, tolerance)
    close(box_deltas.grad.flatten(0, 1)[drawn[0]], golden["grad_deltas"] * excess, tolerance)


def region_objective(loss: dict, append_objects: bool) -> RegionObjective:
    matcher = SampledMatcher(MaxIoUMatcher(ROI_POSITIVE_IOU, ROI_POSITIVE_IOU, best_from=None), None)
    return RegionObjective(matcher, build_loss(loss_settings(loss)), False, PAPER_CODING, append_objects)


def padded_proposals(golden: Golden) -> Tensor:
    proposals = torch.from_numpy(golden["proposals"]).double().split(golden["num_proposals"].tolist())
    return torch.nn.utils.rnn.pad_sequence(list(proposals), batch_first=True)


def in_their_order(found: MatchedRegions, golden: Golden) -> MatchedRegions:
    """The regions in the order of the golden ones: drawn, and positives before negatives."""
    theirs = torch.from_numpy(golden["rois"]).double()
    if theirs.shape[1] == 4:
        images = torch.arange(len(golden["num_sampled"])).repeat_interleave(torch.from_numpy(golden["num_sampled"]))
    else:
        images, theirs = theirs[:, 0].long(), theirs[:, 1:]
    same = (theirs[:, None] == found.regions.boxes).all(dim=2) & (images[:, None] == found.regions.images)
    assert same.any(dim=1).all()
    order = same.int().argmax(dim=1)  # (their R,) rows of ours
    place = torch.full((len(found.regions.boxes),), -1).index_copy(0, order, torch.arange(len(order)))
    num_classes = found.cls_targets.shape[1]
    rows = place[found.rows]
    kept, rows = rows >= 0, rows[rows >= 0]
    by_row = rows.argsort()
    rows, entries = rows[by_row], (rows * num_classes + found.entries[kept] % num_classes)[by_row]
    regions = Regions(found.regions.boxes[order], found.regions.images[order])
    return MatchedRegions(regions, found.cls_targets[order], rows, entries, found.gt_boxes[kept][by_row])


@pytest.mark.parametrize(
    ("name", "loss", "tolerance"),
    [
        ("alrp_roi", {"name": "alrp"}, 1e-8),
        ("alrp_roi_one_object", {"name": "alrp"}, 1e-8),
        ("alrp_roi_image_without_objects", {"name": "alrp"}, 1e-8),
        ("l1_roi", {"name": "ce", **L1}, 1e-10),
        ("l1_roi_image_without_objects", {"name": "ce", **L1}, 1e-10),
        ("giou_roi", {"name": "ce", **GIOU}, 1e-7),
        ("tv_roi", {"name": "ce", **SMOOTH_L1}, 1e-12),
        ("tv_roi_image_without_objects", {"name": "ce", **SMOOTH_L1}, 1e-12),
    ],
)
def test_second_head(shared, name, loss, tolerance):
    golden = load(shared, name)
    class_logits, box_deltas = doubles(golden, "class_logits", "box_deltas")
    background_first = name.startswith("tv_")
    softmax = loss["name"] == "ce"
    num_classes = class_logits.shape[1] - softmax
    objective = region_objective(loss, append_objects=softmax)
    found = in_their_order(objective.match(padded_proposals(golden), targets_of(golden), num_classes), golden)
    labels = torch.from_numpy(golden["labels"]).long()
    positives = indices(golden, "positives")
    assert found.rows.tolist() == positives.tolist() and found.cls_targets.sum() == len(positives)
    assert torch.equal(found.entries, positives * num_classes + labels[positives])

    logits, deltas = class_logits, box_deltas
    if background_first:
        logits, deltas = logits[:, 1:] - logits[:, :1], deltas[:, 1:]
    elif softmax:
        logits = logits[:, :-1] - logits[:, -1:]
    parts = objective(logits, deltas, found)
    weight = objective.loss.settings.box_weight if softmax else 1
    assert parts["loss_cls"].item() == pytest.approx(golden["loss_cls"].item(), abs=tolerance)
    assert weight * parts["loss_loc"].item() == pytest.approx(golden["loss_loc"].item(), abs=tolerance)
    of_logits, of_deltas = torch.autograd.grad(
        parts["loss_cls"] + weight * parts["loss_loc"], (class_logits, box_deltas)
    )
    close(of_logits, golden["grad_logits"], tolerance)
    close(of_deltas[positives, labels[positives] + background_first], golden["grad_deltas"], tolerance)


@pytest.mark.parametrize("name", ["tv_proposals", "tv_proposals_few"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_proposals(shared, name, dtype):
    golden = load(shared, name)
    logits, box_deltas, anchors = (
        torch.from_numpy(golden[key]).to(dtype) for key in ("logits", "box_deltas", "anchors")
    )
    most, number = int(golden["pre_nms_top_n"]), int(golden["post_nms_top_n"])
    proposer = Proposer(TORCHVISION_CODING, candidates=most, number=number)
    levels = anchors.split(golden["anchors_per_level"].tolist())
    sizes = [tuple(golden["clip_size"].tolist())] * 2
    found = proposer(logits[..., None], box_deltas, levels, sizes, training=False)
    for image, boxes in enumerate(found):
        expected = golden[f"boxes_{image}"]
        own = boxes[boxes.any(dim=1)]
        assert len(own) == len(expected)
        close(own.double(), expected, 1e-12 if dtype == torch.float64 else 1e-4)
    training = Proposer(TORCHVISION_CODING, candidates=1, candidates_train=most, number=number)
    assert torch.equal(training(logits[..., None], box_deltas, levels, sizes, training=True), found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_detections(shared, dtype):
    golden = load(shared, "tv_detections")
    logits, box_deltas, boxes = (
        torch.from_numpy(golden[key]).to(dtype) for key in ("class_logits", "box_deltas", "proposals")
    )
    coding = PAPER_CODING._replace(min_log_ratio=TORCHVISION_CODING.min_log_ratio)
    images = torch.arange(2).repeat_interleave(len(boxes) // 2)
    sizes = [tuple(golden["clip_size"].tolist())] * 2
    regions = Regions(boxes, images)
    found = RegionPostProcessor(coding, softmax=True)(logits[:, 1:] - logits[:, :1], box_deltas[:, 1:], regions, sizes)
    exact = dtype == torch.float64
    for image, detections in enumerate(found):
        assert detections["labels"].tolist() == golden[f"labels_{image}"].tolist()
        close(detections["scores"].double(), golden[f"scores_{image}"], 1e-12 if exact else 1e-6)
        close(detections["boxes"].double(), golden[f"boxes_{image}"], 1e-12 if exact else 1e-4)


@pytest.mark.parametrize(("key", "aligned"), [("tv_pooled", False), ("mmdet_pooled", True)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_pooled_maps(shared, key, aligned, dtype, tolerance):
    golden = load(shared, "roi_align")
    generator = torch.Generator().manual_seed(int(golden["seed"]))
    features = [torch.randn(2, 3, 512 // s, 640 // s, generator=generator) for s in (4, 8, 16, 32)]
    for feature, first in zip(features, golden["feature_check"], strict=True):
        close(feature.flatten()[:3].double(), first, 1e-7)
    pooler, boxes = RegionPooler(aligned=aligned), torch.from_numpy(golden["rois"]).to(dtype)
    assert pooler.levels(boxes).tolist() == golden["level"].tolist()
    pooled = pooler([f.to(dtype) for f in features], Regions(boxes, torch.from_numpy(golden["image_index"]).long()))
    close(pooled.double(), golden[key], tolerance)
