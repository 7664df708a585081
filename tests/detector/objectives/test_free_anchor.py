"""FreeAnchor: the authors' values and gradients, any batch, crowd regions, processes, what a monitor sees, memory."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from free_anchor_worker import LEVELS, K, make_batch, parts_and_gradients, work
from operation_counter import OperationCounter

from detector.boxes import pairwise_iou
from detector.monitor import Monitor
from detector.objectives import FreeAnchor, MatchedObjective, build_objective
from detector.objectives.free_anchor import _Objects
from engine.run.config import ConfigError, parse_config
from losses.free_anchor import FreeAnchorLoss, FreeAnchorSettings

CASES = ("confident", "image_without_objects", "mid", "no_objects", "one_object", "overlap")
ANCHORS = torch.cat(LEVELS)


@pytest.fixture(params=CASES)
def golden(request, shared):
    return np.load(shared / "golden/freeanchor" / f"{request.param}.npz")


def inputs_of(golden, dtype):
    logits, deltas = (torch.from_numpy(golden[name]).to(dtype) for name in ("cls_logits", "box_deltas"))
    counts = golden["num_boxes"].tolist()
    boxes = torch.from_numpy(golden["boxes"]).to(dtype).split(counts)
    labels = torch.from_numpy(golden["labels"]).long().split(counts)
    targets = [
        {"boxes": b, "labels": k, "crowd": torch.zeros(len(b), dtype=torch.bool)}
        for b, k in zip(boxes, labels, strict=True)
    ]
    return logits.requires_grad_(), deltas.requires_grad_(), torch.from_numpy(golden["anchors"]).to(dtype), targets


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_equals_released_code(golden, dtype, tolerance):
    logits, deltas, anchors, targets = inputs_of(golden, dtype)
    losses = FreeAnchor()(logits, deltas, anchors, targets)
    losses["loss"].backward()
    for part in ("positive", "negative"):
        value = losses[f"loss_{part}"]
        assert value.dtype == dtype
        assert value.item() == pytest.approx(golden[f"mmdet_{part}"].item(), rel=tolerance, abs=tolerance)
    assert losses["loss"].item() == pytest.approx((losses["loss_positive"] + losses["loss_negative"]).item())
    assert (logits.grad - torch.from_numpy(golden["mmdet_grad_logits"])).abs().max() <= tolerance
    expected = torch.zeros(deltas.shape, dtype=torch.float64).flatten(0, 1)
    expected[torch.from_numpy(golden["grad_rows"]).long()] = torch.from_numpy(golden["mmdet_grad_deltas"])
    assert (deltas.grad.flatten(0, 1) - expected).abs().max() <= tolerance


def test_bags_and_containment_are_those_of_the_released_code(golden):
    logits, deltas, anchors, targets = inputs_of(golden, torch.float64)
    objective = FreeAnchor()
    if "bags" in golden:
        bags = objective._bags(anchors, torch.cat([target["boxes"] for target in targets]))
        assert np.array_equal(bags.sort().values.numpy(), golden["bags"])
    contained = []
    for own_deltas, target in zip(deltas.detach(), targets, strict=True):
        objects = _Objects(torch.zeros_like(target["labels"]), target["boxes"], target["labels"])
        contained.append(objective._contained(objective.coding.decode(own_deltas, anchors), objects, logits.shape[2]))
    contained = torch.stack(contained).flatten()
    assert np.array_equal(contained.nonzero().squeeze(1).numpy(), golden["box_prob_index"])
    np.testing.assert_allclose(contained[contained > 0].numpy(), golden["box_prob"], rtol=1e-12)


def test_a_batch_of_other_numbers_than_objects_anchors_and_bags(make_target):
    """Fewer anchors than a bag holds, and a bag of one, worked out by hand."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    targets = [make_target((20, 20, 40, 40), labels=(1,))]
    logits, deltas = torch.zeros(1, 2, 2), torch.zeros(1, 2, 4)
    # The second anchor is the object's box and explains it as well as it scores it, 1/2. The first cannot.
    expected = 0.5 * -math.log(1 / 2)
    settings = FreeAnchorSettings(bag_size=1)
    losses = FreeAnchor(FreeAnchorLoss(settings))(logits, deltas, anchors, targets)
    assert losses["loss_positive"].item() == pytest.approx(expected, rel=1e-6)
    # All entries but that one are background with a probability of 1/2.
    assert losses["loss_negative"].item() == pytest.approx(0.5 * 3 * 0.25 * math.log(2), rel=1e-6)
    assert FreeAnchor()(logits, deltas, anchors, targets)["loss_positive"].item() > expected


@pytest.mark.parametrize("objects", ["in both images", "in one image", "in none"])
def test_losses_of_any_batch_reach_every_parameter(make_detector, make_target, objects):
    full, empty = make_target((5, 5, 50, 60), (60, 8, 90, 40), labels=(2, 0)), make_target()
    targets = {"in both images": [full, full], "in one image": [empty, full], "in none": [empty, empty]}[objects]
    detector = make_detector(loss={"name": "freeanchor"})
    losses = detector(torch.rand(2, 3, 64, 96), targets)
    losses["loss"].backward()
    assert set(losses) == {"loss", "loss_positive", "loss_negative"}
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
    assert (losses["loss_positive"] == 0) == (objects == "in none")
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_bfloat16_is_the_same_but_for_rounding(make_detector, make_target):
    images, targets = torch.rand(2, 3, 64, 96), [make_target((5, 5, 50, 60), labels=(2,))] * 2
    exact = make_detector(loss={"name": "freeanchor"})(images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = make_detector(loss={"name": "freeanchor"})(images, targets)
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32 and rounded[name].item() == pytest.approx(value.item(), rel=0.1)
    logits, deltas, targets = make_batch()
    halves = FreeAnchor()(logits.bfloat16(), deltas.bfloat16(), LEVELS, targets)
    singles = FreeAnchor()(logits.bfloat16().float(), deltas.bfloat16().float(), LEVELS, targets)
    assert all(torch.equal(halves[name], value) for name, value in singles.items())


def test_boxes_without_area_are_no_objects(make_target):
    logits, deltas = (value[:1] for value in make_batch()[:2])
    boxes = (10, 10, 50, 40), (20, 5, 60, 70)
    alone = FreeAnchor()(logits, deltas, LEVELS, [make_target(*boxes, labels=(1, 2))])
    targets = [make_target(boxes[0], (30, 30, 30, 60), boxes[1], (0, 0, 0, 0), labels=(1, 0, 2, 1))]
    beside = FreeAnchor()(logits, deltas, LEVELS, targets)
    assert all(torch.equal(beside[name], value) for name, value in alone.items())


def test_crowd_regions_are_background_or_ignored_in_their_class(make_target):
    logits, deltas, _ = make_batch()
    target = make_target((10, 10, 50, 40), (0, 0, 48, 96), labels=(2, 1), crowd=(False, True))
    gradients = []
    for ignore_crowd in (False, True):
        own = logits[:1].clone().requires_grad_()
        FreeAnchor(ignore_crowd=ignore_crowd)(own, deltas[:1], LEVELS, [target])["loss"].backward()
        gradients.append(own.grad[0])
    x1, y1, x2, y2 = ANCHORS.unbind(dim=1)
    width, height = x2.clamp(max=48) - x1.clamp(min=0), y2.clamp(max=96) - y1.clamp(min=0)
    covered = width.clamp(min=0) * height.clamp(min=0) / ((x2 - x1) * (y2 - y1)) >= 0.5
    assert covered.any() and not covered.all() and (gradients[0] != 0).all()
    assert torch.equal(gradients[1][:, 1] == 0, covered)
    gradients[0][covered, 1] = 0
    assert torch.equal(*gradients)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    joined = parts_and_gradients(slice(0, 4))
    for name, value in joined.items():
        if name.startswith("loss"):
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], value, rtol=1e-12, atol=0)
        else:
            torch.testing.assert_close(torch.cat([first[name], second[name]]), value, rtol=1e-10, atol=1e-16)


def test_a_monitor_sees_the_anchor_that_explains_an_object_best_and_changes_nothing(make_target):
    logits, deltas, targets = make_batch()
    logits[0, :, 1] = -20
    targets[0] = make_target((8, 8, 40, 40), labels=(1,))
    anchor = int(pairwise_iou(targets[0]["boxes"], ANCHORS).argmax())
    logits[0, anchor, 1] = 2
    deltas[0, anchor] = FreeAnchor().coding.encode(targets[0]["boxes"], ANCHORS[anchor, None])
    results = []
    for monitor in (None, Monitor(), Monitor(detailed=True)):
        own = logits[:1].clone().requires_grad_()
        losses = FreeAnchor()(own, deltas[:1], LEVELS, targets[:1], monitor=monitor)
        losses["loss"].backward()
        results.append(losses["loss"].detach())
        if monitor is None:
            continue
        values, gradient = monitor.values, own.grad.abs()
        assert values["num_positives"] == 1
        assert values["grad_mass_positive"] == gradient[0, anchor, 1]
        assert values["num_relevant_negatives"] <= len(ANCHORS) * K - 1
        assert 0 < values["grad_mass_negative"] <= gradient.sum() - gradient[0, anchor, 1]
    assert results[0] == results[1] == results[2]
    assert values["positives_per_level"].sum() == values["num_objects"] == 1
    assert values["sum_iou"].item() == pytest.approx(1)


def test_objects_that_choose_one_anchor_count_once(make_target):
    logits, deltas, _ = make_batch()
    target = make_target((8, 8, 40, 40), (8, 8, 40, 40), labels=(1, 1))
    monitor = Monitor(detailed=True)
    FreeAnchor()(logits[:1].requires_grad_(), deltas[:1], LEVELS, [target], monitor=monitor)
    assert monitor.values["num_positives"] == monitor.values["positives_per_level"].sum() == 1


def test_memory_does_not_grow_with_the_number_of_objects_or_images(monkeypatch, make_target):
    monkeypatch.setattr("detector.boxes.MAX_PAIRS", 2 * len(ANCHORS))  # two objects at a time
    logits, deltas, _ = make_batch()
    boxes = [(x, y, x + 20, y + 30) for x in range(0, 60, 6) for y in range(0, 60, 6)]
    targets = [make_target(*boxes)] * 4
    with OperationCounter() as operations:
        FreeAnchor()(logits.float().requires_grad_(), deltas.float(), LEVELS, targets)
    # the largest: two rows of pairs, in float64 or indices of both axes, or a bag's members of all objects
    bags = 4 * len(boxes) * 50 * 4 * 4
    assert max(operations.sizes) <= max(2 * len(ANCHORS) * 16, bags, deltas.numel() * 8)
    assert len(boxes) * len(ANCHORS) * 4 > max(operations.sizes)


def test_the_builder_chooses_by_the_loss():
    settings = [parse_config({"loss": {"name": name}}, "x").loss for name in ("freeanchor", "focal")]
    objectives = [build_objective(None, each, True, FreeAnchor().coding) for each in settings]
    assert [type(objective) for objective in objectives] == [FreeAnchor, MatchedObjective]
    assert objectives[0].ignore_crowd and objectives[0].loss.settings is settings[0]


def test_what_it_does_not_use_or_cannot_be_used_with_is_refused():
    values = {"loss": {"name": "freeanchor"}}
    with pytest.raises(
        ConfigError, match=r"x: model\.matcher: does nothing with loss\.name: freeanchor \(found 'atss'"
    ):
        parse_config(values, "x", ["model.matcher=atss"])
    with pytest.raises(ConfigError, match=r"model\.background_iou: does nothing"):
        parse_config(values, "x", ["model.background_iou=0.5"])
    with pytest.raises(ConfigError, match=r"loss\.name: freeanchor does not go with model\.family: fcos; alrp, ap"):
        parse_config(values, "x", ["model.family=fcos"])
    with pytest.raises(ConfigError, match=r"loss\.delta: loss\.name=freeanchor has no such key"):
        parse_config(values, "x", ["loss.delta=1.0"])
