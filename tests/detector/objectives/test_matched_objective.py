"""Which entries are positive, negative or ignored, and the losses made of them."""

import pytest
import torch
from torch.nn import functional as F
from torchvision import ops

from detector.anchors import AnchorGenerator
from detector.assignment import assign_targets
from detector.boxes import PAPER_CODING, decode_boxes, encode_boxes
from detector.config import loss_settings
from detector.matcher import ATSSMatcher, MaxIoUMatcher
from detector.monitor import Monitor
from detector.objectives import MatchedObjective
from detector.objectives.matched import compare
from losses import alrp_loss, ap_loss, focal_loss, rs_loss, triton_support
from losses.alrp import localisation_errors
from losses.matched import OVERLAPS
from losses.table import build_loss

K = 4
LEVELS = AnchorGenerator((8, 16, 32))([(16, 16), (8, 8), (4, 4)])
ANCHORS = torch.cat(LEVELS)
A = len(ANCHORS)


def assign(targets, matcher=None, ignore_crowd=False):
    return assign_targets(matcher or MaxIoUMatcher(), LEVELS, targets, K, ignore_crowd)


def objective(name="alrp", **settings) -> MatchedObjective:
    return MatchedObjective(MaxIoUMatcher(), build_loss(loss_settings({"name": name, **settings})))


def flat_positives(assignment) -> torch.Tensor:
    return assignment.images * A + assignment.reference_index


def outputs(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cls_logits = torch.randn(batch, A, K, generator=generator) - 2
    box_deltas = torch.randn(batch, A, 4, generator=generator) * 0.5
    return cls_logits.requires_grad_(), box_deltas.requires_grad_()


@pytest.fixture
def two_targets(make_target):
    return [
        make_target((10, 10, 60, 60), (50, 40, 120, 100), labels=(1, 3)),
        make_target((20, 5, 60, 90), labels=(2,)),
    ]


def test_entries_of_every_kind_of_anchor(two_targets):
    assignment = assign(two_targets)
    for image, target in enumerate(two_targets):
        matches = MaxIoUMatcher()(LEVELS, target["boxes"])
        entries = assignment.cls_targets[image]
        assert (matches >= 0).any() and (matches == -1).any() and (matches == -2).any()
        assert (entries[matches == -2] == -1).all()
        assert (entries[matches == -1] == 0).all()
        one_hot = F.one_hot(target["labels"][matches[matches >= 0]], K)
        assert torch.equal(entries[matches >= 0].long(), one_hot)


def test_positives_are_in_flat_order_with_their_boxes(two_targets):
    assignment = assign(two_targets)
    positives = (assignment.cls_targets.flatten() == 1).nonzero().squeeze(1)
    assert torch.equal(positives // K, flat_positives(assignment))
    assert torch.equal(assignment.reference_boxes, ANCHORS[assignment.reference_index])
    boxes = torch.cat([target["boxes"] for target in two_targets])
    labels = torch.cat([target["labels"] for target in two_targets])
    for gt_box, entry in zip(assignment.gt_boxes, positives, strict=True):
        (index,) = (boxes == gt_box).all(dim=1).nonzero().squeeze(1).tolist()
        assert labels[index] == entry % K and (index == 2) == (entry >= A * K)


@pytest.mark.parametrize("matcher", [MaxIoUMatcher(), ATSSMatcher()])
def test_assignment_of_a_batch_is_that_of_its_images(two_targets, matcher):
    together = assign(two_targets, matcher)
    alone = [assign([target], matcher) for target in two_targets]
    assert torch.equal(together.cls_targets, torch.cat([a.cls_targets for a in alone]))
    assert torch.equal(together.gt_boxes, torch.cat([a.gt_boxes for a in alone]))
    assert torch.equal(flat_positives(together), torch.cat([flat_positives(alone[0]), flat_positives(alone[1]) + A]))


def test_images_without_objects(make_target, two_targets):
    assert not assign([make_target()]).cls_targets.any()
    mixed, alone = assign([make_target(), two_targets[0], make_target()]), assign([two_targets[0]])
    assert torch.equal(flat_positives(mixed), flat_positives(alone) + A)


def test_crowds_are_background_by_default(make_target):
    crowd = make_target((0, 0, 128, 128), labels=(1,), crowd=(True,))
    assert not assign([crowd]).cls_targets.any()


def test_ignored_crowds_ignore_negatives_of_their_class_only(make_target):
    target = make_target((10, 10, 60, 60), (0, 0, 64, 128), labels=(2, 1), crowd=(False, True))
    background = assign([target]).cls_targets[0]
    ignoring = assign([target], ignore_crowd=True).cls_targets[0]
    matches = MaxIoUMatcher()(LEVELS, target["boxes"][:1])
    x1, y1, x2, y2 = ANCHORS.unbind(dim=1)
    width = (x2.clamp(max=64) - x1.clamp(min=0)).clamp(min=0)
    height = (y2.clamp(max=128) - y1.clamp(min=0)).clamp(min=0)
    covered = width * height / ((x2 - x1) * (y2 - y1)) >= 0.5
    expected = background.clone()
    expected[covered & (matches == -1), 1] = -1
    assert torch.equal(ignoring, expected) and not torch.equal(ignoring, background)
    # a positive anchor inside the crowd is still a negative of the crowd's class
    assert (covered & (matches >= 0)).any() and (ignoring[matches >= 0, 1] == 0).all()


def test_overlapping_crowds_of_two_classes(make_target):
    boxes = [(0, 0, 128, 128)] * 2
    target = make_target(*boxes, labels=(0, 3), crowd=(True, True))
    ignored = assign([target], ignore_crowd=True).cls_targets[0] == -1
    assert torch.equal(ignored[:, 0], ignored[:, 3]) and ignored[:, 0].any()
    assert not ignored[:, 1:3].any()


@pytest.mark.parametrize(
    ("loc_error", "expected"),
    [
        ("iou", lambda a, b: (1 - ops.box_iou(a, b).diag()) / 0.5),
        ("giou", lambda a, b: 1 - ops.generalized_box_iou(a, b).diag()),
        ("diou", lambda a, b: 1 - ops.distance_box_iou(a, b).diag()),
    ],
)
def test_localisation_errors(loc_error, expected):
    corner = torch.rand(50, 2) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(50, 2) * 50], dim=1)
    shifted = boxes + torch.randn(50, 4)
    torch.testing.assert_close(
        localisation_errors(OVERLAPS[loc_error](shifted, boxes), loc_error), expected(shifted, boxes)
    )
    assert localisation_errors(OVERLAPS[loc_error](boxes, boxes), loc_error).abs().max() < 1e-6


def test_alrp_is_the_loss_of_the_decoded_positives(two_targets):
    cls_logits, box_deltas = outputs(2)
    losses = objective()(cls_logits, box_deltas, LEVELS, two_targets)
    assignment = assign(two_targets)
    positives = flat_positives(assignment)
    boxes = decode_boxes(box_deltas.flatten(0, 1)[positives], ANCHORS.repeat(2, 1)[positives])
    errors = 1 - ops.generalized_box_iou(boxes, assignment.gt_boxes).diag()
    loss_cls, loss_loc = alrp_loss(cls_logits.flatten(), assignment.cls_targets.flatten(), errors)
    torch.testing.assert_close(losses["loss_cls"], loss_cls)
    torch.testing.assert_close(losses["loss_loc"], loss_loc)
    torch.testing.assert_close(losses["loss"], loss_cls + 50 * loss_loc)


def test_self_balance_weighs_the_localisation_part_of_alrp_only(two_targets):
    arguments = (*outputs(2), LEVELS, two_targets)
    balanced = objective()
    balanced.loss.balance.weight.fill_(7.0)
    losses = balanced(*arguments)
    torch.testing.assert_close(losses["loss"], losses["loss_cls"] + 7 * losses["loss_loc"])
    plain = objective(self_balance=False)(*arguments)
    torch.testing.assert_close(plain["loss"], plain["loss_cls"] + plain["loss_loc"])
    assert objective("focal").loss.balance is None
    assert list(balanced.state_dict()) and not list(objective("ap").state_dict())


def test_equal_box_weights_take_the_mean_error_and_balance_in_every_step(two_targets):
    arguments = (*outputs(2), LEVELS, two_targets)
    ranked, equal = objective(), objective(box_weights="equal")
    losses = equal(*arguments)
    assignment = assign_targets(MaxIoUMatcher(), LEVELS, two_targets, K, False)
    boxes = decode_boxes(arguments[1].flatten(0, 1), ANCHORS.repeat(2, 1))[flat_positives(assignment)]
    mean = (1 - ops.generalized_box_iou(boxes, assignment.gt_boxes).diag()).mean()
    torch.testing.assert_close(losses["loss_loc"], mean)
    torch.testing.assert_close(losses["loss"], 2 * losses["loss_cls"])
    torch.testing.assert_close(losses["loss_cls"], ranked(*arguments)["loss_cls"])
    assert equal.loss.balance is None
    plain = objective(box_weights="equal", self_balance=False)(*arguments)
    torch.testing.assert_close(plain["loss"], plain["loss_cls"] + mean)


@pytest.mark.parametrize("name", ["ap", "focal"])
def test_baselines_localise_with_smooth_l1(two_targets, name):
    cls_logits, box_deltas = outputs(2)
    losses = objective(name, **({"delta": 0.5} if name == "ap" else {"alpha": 0.3, "gamma": 1.5}))(
        cls_logits, box_deltas, LEVELS, two_targets
    )
    assignment = assign(two_targets)
    flat = cls_logits.flatten(), assignment.cls_targets.flatten()
    loss_cls = ap_loss(*flat, 0.5) if name == "ap" else focal_loss(*flat, 0.3, 1.5)
    positives = flat_positives(assignment)
    offsets = encode_boxes(assignment.gt_boxes, ANCHORS.repeat(2, 1)[positives])
    loss_loc = F.smooth_l1_loss(box_deltas.flatten(0, 1)[positives], offsets)
    torch.testing.assert_close(losses["loss_cls"], loss_cls)
    torch.testing.assert_close(losses["loss_loc"], loss_loc)
    torch.testing.assert_close(losses["loss"], loss_cls + loss_loc)


@pytest.mark.parametrize(("name", "self_balance"), [("rs", True), ("rs", False), ("focal", True)])
def test_boxes_are_learned_by_their_overlap(two_targets, name, self_balance):
    cls_logits, box_deltas = outputs(2)
    settings = {"delta": 0.5, "self_balance": self_balance} if name == "rs" else {"box_loss": "giou"}
    losses = objective(name, **settings)(cls_logits, box_deltas, LEVELS, two_targets)
    assignment = assign(two_targets)
    flat = cls_logits.flatten(), assignment.cls_targets.flatten()
    positives, gt_boxes = flat_positives(assignment), assignment.gt_boxes
    boxes = decode_boxes(box_deltas.flatten(0, 1)[positives], ANCHORS.repeat(2, 1)[positives])
    errors = 1 - ops.generalized_box_iou(boxes, gt_boxes).diag()
    if name == "rs":
        ious = ops.box_iou(boxes.detach(), gt_boxes).diag()
        loss_cls = sum(rs_loss(*flat, ious, 0.5))
        scores = flat[0].detach()[flat[1] == 1].sigmoid()
        loss_loc = (errors * scores).sum() / scores.sum()
    else:
        loss_cls, loss_loc = focal_loss(*flat), errors.mean()
    torch.testing.assert_close(losses["loss_cls"], loss_cls)
    torch.testing.assert_close(losses["loss_loc"], loss_loc)
    weight = loss_cls.item() / loss_loc.item() if name == "rs" and self_balance else 1.0
    (actual,) = torch.autograd.grad(losses["loss"], box_deltas)
    (expected,) = torch.autograd.grad(weight * loss_loc, box_deltas)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", ["alrp", "rs", "ap", "focal"])
def test_without_positives_the_loss_is_finite_and_attached(make_target, name):
    cls_logits, box_deltas = outputs(2)
    losses = objective(name)(cls_logits, box_deltas, LEVELS, [make_target()] * 2)
    losses["loss"].backward()
    assert losses["loss_loc"] == 0 and (losses["loss_cls"] == 0) == (name != "focal")
    assert not box_deltas.grad.any() and cls_logits.grad.isfinite().all()
    assert cls_logits.grad.any() == (name == "focal")


@pytest.mark.parametrize("loc_error", ["iou", "giou", "diou"])
def test_wild_predictions_have_finite_gradients(two_targets, loc_error):
    cls_logits, box_deltas = outputs(2)
    box_deltas = (box_deltas.detach() * 1e3).requires_grad_()
    losses = objective(loc_error=loc_error)(cls_logits, box_deltas, LEVELS, two_targets)
    losses["loss"].backward()
    assert losses["loss"].isfinite() and box_deltas.grad.isfinite().all()


@pytest.mark.parametrize("name", ["alrp", "rs", "ap", "focal"])
def test_monitor_counts_and_weighs(two_targets, name):
    cls_logits, box_deltas = outputs(2)
    monitor = Monitor()
    losses = objective(name)(cls_logits, box_deltas, LEVELS, two_targets, monitor=monitor)
    losses["loss"].backward()
    targets, logits = assign(two_targets).cls_targets.flatten(), cls_logits.detach().flatten()
    negatives, delta = logits[targets == 0], 0.5 if name == "rs" else 1
    relevant = negatives if name == "focal" else negatives[negatives > logits[targets == 1].min() - delta]
    mass = cls_logits.grad.flatten().abs()
    assert monitor.values["num_positives"] == (targets == 1).sum()
    assert monitor.values["num_relevant_negatives"] == len(relevant)
    torch.testing.assert_close(monitor.values["grad_mass_positive"], mass[targets == 1].sum())
    torch.testing.assert_close(monitor.values["grad_mass_negative"], mass[targets == 0].sum())
    assert all(value.dim() == 0 and not value.requires_grad for value in monitor.values.values())
    if name in ("alrp", "ap"):  # the balance theorem
        torch.testing.assert_close(monitor.values["grad_mass_positive"], monitor.values["grad_mass_negative"])


@pytest.mark.parametrize("name", ["alrp", "ap", "rs", "focal", "dr"])
def test_logits_of_half_the_digits_give_the_losses_of_the_same_numbers_in_float32(name, two_targets):
    (logits, deltas), results = outputs(2), []
    for inputs in (logits.detach().bfloat16(), logits.detach().bfloat16().float()):
        losses = objective(name)(inputs.requires_grad_(), deltas, LEVELS, two_targets)
        results.append((losses["loss"], *torch.autograd.grad(losses["loss"], inputs)))
    (loss, gradient), (expected, wanted) = results
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(loss, expected) and torch.equal(gradient, wanted.bfloat16())


@pytest.mark.parametrize("kernels", [True, False])
def test_logits_are_copied_to_float32_only_where_no_kernel_reads_them(kernels, two_targets, monkeypatch):
    monkeypatch.setattr(triton_support, "usable", lambda logits: kernels)
    logits, deltas = outputs(2)
    half = logits.detach().bfloat16()
    matched = compare(half, deltas, assign(two_targets), PAPER_CODING)
    assert (matched.logits.data_ptr() == half.data_ptr()) == kernels
    assert matched.logits.dtype == (torch.bfloat16 if kernels else torch.float32)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
@pytest.mark.parametrize("name", ["alrp", "rs", "ap", "focal"])
def test_the_overlap_is_the_one_that_is_named(two_targets, name, kind):
    cls_logits, box_deltas = outputs(2)
    key = "loc_error" if name in ("alrp", "rs") else "box_loss"
    loss_loc = objective(name, **{key: kind})(cls_logits, box_deltas, LEVELS, two_targets)["loss_loc"]
    found = assign(two_targets)
    boxes = decode_boxes(found.of_positives(box_deltas), found.reference_boxes)
    overlap = {"iou": ops.box_iou, "giou": ops.generalized_box_iou, "diou": ops.distance_box_iou}[kind]
    errors = 1 - overlap(boxes, found.gt_boxes).diag()
    if name == "alrp":
        tau = 0.5 if kind == "iou" else 1
        expected = alrp_loss(cls_logits.flatten(), found.cls_targets.flatten(), errors / tau)[1]
    elif name == "rs":
        scores = cls_logits.flatten()[found.entries].sigmoid()
        expected = (scores * errors).sum() / scores.sum()
    else:
        expected = errors.mean()
    torch.testing.assert_close(loss_loc, expected)
