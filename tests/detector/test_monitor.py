"""detector/monitor.py against counts made one by one, and sums that add up."""

import pytest
import torch
from torchvision import ops

from detector.anchors import AnchorGenerator
from detector.assignment import assign_targets
from detector.boxes import decode_boxes
from detector.config import loss_settings
from detector.matcher import MaxIoUMatcher
from detector.monitor import IOU_EDGES, LOGIT_EDGES, RANK_EDGES, REACHED_IOU, Monitor
from detector.objectives import MatchedObjective
from losses.table import build_loss

K = 4
LEVELS = AnchorGenerator((8, 16, 32))([(16, 16), (8, 8), (4, 4)])
ANCHORS = torch.cat(LEVELS)


def objective(name="alrp") -> MatchedObjective:
    return MatchedObjective(MaxIoUMatcher(), build_loss(loss_settings({"name": name})))


@pytest.fixture(params=[1 << 24, 1000])  # all entries at once, and in pieces
def watched(make_target, monkeypatch, request):
    """Monitor, logits (M,), box offsets (P, 4) and assignment of two images, one object of which no anchor fits."""
    targets = [
        make_target((10, 10, 60, 60), (50, 40, 53, 43), labels=(1, 3)),
        make_target((20, 5, 60, 90), labels=(2,)),
    ]
    generator = torch.Generator().manual_seed(0)
    cls_logits = (torch.randn(2, len(ANCHORS), K, generator=generator) - 2).requires_grad_()
    box_deltas = torch.randn(2, len(ANCHORS), 4, generator=generator) * 0.5
    monkeypatch.setattr("detector.monitor.PIECE", request.param)
    monitor = Monitor(detailed=True)
    objective()(cls_logits, box_deltas, LEVELS, targets, monitor=monitor)["loss"].backward()
    assignment = assign_targets(MaxIoUMatcher(), LEVELS, targets, K, ignore_crowd=False)
    for name, target in (("positive", 1), ("negative", 0)):
        mass = cls_logits.grad.flatten()[assignment.cls_targets.flatten() == target].abs().sum()
        assert monitor.values[f"grad_mass_{name}"].item() == pytest.approx(mass.item(), rel=1e-5)
    return monitor.values, cls_logits.detach().flatten(), assignment.of_positives(box_deltas), assignment


def test_ranks_and_scores(watched):
    values, logits, _, assignment = watched
    targets = assignment.cls_targets.flatten()
    positive, negative = logits[targets == 1].double(), logits[targets == 0].double()
    ranks, precision = [], []
    for index, score in enumerate(positive):
        step = ((positive - score) / 2 + 0.5).clamp(0, 1)  # δ = 1
        step[index] = 1
        rank = step.sum() + ((negative - score) / 2 + 0.5).clamp(0, 1).sum()
        ranks.append(rank)
        precision.append(step.sum() / rank)
    assert values["num_negatives"] == len(negative)
    assert values["num_relevant_negatives"] == (negative > positive.min() - 1).sum() < len(negative)
    assert values["sum_precision"].item() == pytest.approx(sum(precision).item(), rel=1e-6)
    expected = torch.histogram(torch.stack(ranks).float(), RANK_EDGES).hist
    assert torch.equal(values["hist_rank"], expected.long())
    for name, scores in (("positive", positive), ("negative", negative)):
        assert torch.equal(values[f"hist_logit_{name}"], torch.histogram(scores.float(), LOGIT_EDGES).hist.long())


def test_boxes_levels_and_objects(watched, make_target):
    values, _, deltas, assignment = watched
    index = assignment.reference_index
    ious = ops.box_iou(decode_boxes(deltas, ANCHORS[index]), assignment.gt_boxes).diagonal()
    assert values["sum_iou"].item() == pytest.approx(ious.sum().item(), rel=1e-5)
    assert torch.equal(values["hist_iou"], torch.histogram(ious, IOU_EDGES).hist.long())
    counts = [((index >= first) & (index < end)).sum() for first, end in ((0, 1536), (1536, 1920), (1920, 2016))]
    assert values["positives_per_level"].tolist() == counts and min(counts) >= 0 and sum(counts) == len(index)
    boxes = torch.tensor([[10.0, 10, 60, 60], [50, 40, 53, 43], [20, 5, 60, 90]])
    best = ops.box_iou(boxes, ANCHORS).amax(dim=1)
    assert (values["num_objects"], values["num_objects_reached"]) == (3, 2)
    assert best[1] < REACHED_IOU
    assert values["sum_reference_iou"].item() == pytest.approx(best.sum().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["alrp", "rs", "ap", "focal"])
def test_watching_changes_no_gradient_and_needs_no_object(make_target, name):
    gradients = []
    for monitor in (None, Monitor(detailed=True)):
        generator = torch.Generator().manual_seed(0)
        cls_logits = torch.randn(1, len(ANCHORS), K, generator=generator).requires_grad_()
        box_deltas = torch.randn(1, len(ANCHORS), 4, generator=generator).requires_grad_()
        losses = objective(name)(cls_logits, box_deltas, LEVELS, [make_target()], monitor=monitor)
        losses["loss"].backward()
        gradients.append(torch.cat([cls_logits.grad.flatten(), box_deltas.grad.flatten()]))
    assert torch.equal(*gradients)
    assert (monitor.values["num_objects"], monitor.values["num_positives"]) == (0, 0)
    for statistic in ("sum_precision", "hist_rank", "hist_logit_positive", "hist_iou", "positives_per_level"):
        assert not monitor.values[statistic].any()


def test_logits_that_are_not_finite_are_counted_nowhere(make_target):
    cls_logits = torch.full((1, len(ANCHORS), K), torch.nan)
    monitor = Monitor(detailed=True)
    target = make_target((10, 10, 60, 60))
    objective()(cls_logits, torch.zeros(1, len(ANCHORS), 4), LEVELS, [target], monitor=monitor)
    assert monitor.values["num_positives"] > 0
    assert not monitor.values["hist_rank"].any() and not monitor.values["hist_logit_negative"].any()


def test_a_head_without_entries_has_nothing_to_count():
    monitor = Monitor()
    monitor.watch_logits(torch.zeros(0, requires_grad=True), torch.zeros(0, dtype=torch.int8), 1.0)
    assert {name: value.item() for name, value in monitor.values.items()} == {
        "num_positives": 0,
        "num_relevant_negatives": 0,
    }
