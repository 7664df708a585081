"""detector/nms.py keeps exactly what torchvision keeps, in a defined order."""

import statistics
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops

from detector import nms
from detector.nms import batched_nms


def random_input(n: int, num_classes: int, seed: int = 0, spread: float = 800.0):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(n, 2, generator=generator) * spread
    sizes = 10 + torch.rand(n, 2, generator=generator) * 190
    boxes = torch.cat([centers - sizes / 2, centers + sizes / 2], dim=1).clamp(0, spread)
    scores = torch.rand(n, generator=generator)
    return boxes, scores, torch.randint(0, num_classes, (n,), generator=generator)


def assert_like_torchvision(boxes, scores, labels, iou_threshold):
    kept = batched_nms(boxes, scores, labels, iou_threshold).tolist()
    assert set(kept) == set(ops.batched_nms(boxes, scores, labels, iou_threshold).tolist())
    assert kept == sorted(kept, key=lambda i: (-scores[i].item(), i))


# small integers, few scores and classes: equal boxes, equal scores, IoUs on the threshold, boxes without area
BOX = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(0, 5)] * 2)
ENTRY = st.tuples(BOX, st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 2))
THRESHOLD = st.sampled_from([0.0, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 1.0])


@settings(max_examples=200, deadline=None)
@given(st.lists(ENTRY, max_size=60), THRESHOLD)
def test_ties_and_degenerate_boxes(entries, iou_threshold):
    boxes = torch.tensor([[x, y, x + w, y + h] for (x, y, w, h), _, _ in entries], dtype=torch.float32)
    scores = torch.tensor([score for _, score, _ in entries], dtype=torch.float32)
    labels = torch.tensor([label for _, _, label in entries], dtype=torch.int64)
    assert_like_torchvision(boxes.reshape(-1, 4), scores, labels, iou_threshold)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 1500), st.integers(1, 90), THRESHOLD, st.floats(50, 2000))
def test_random_boxes(seed, n, num_classes, iou_threshold, spread):
    assert_like_torchvision(*random_input(n, num_classes, seed, spread), iou_threshold)


def test_up_to_1000_boxes_share_torchvisions_rounding():
    # there it moves the boxes of each class apart; so far apart, here, that coordinates round to whole pixels
    boxes, scores, labels = random_input(1000, 80)
    assert_like_torchvision(boxes, scores, labels * 1000, 0.5)


def test_large_and_small_classes_together():
    boxes, scores, labels = random_input(4000, 40)
    labels[:2500] = 7
    assert_like_torchvision(boxes, scores, labels, 0.5)
    assert_like_torchvision(boxes, scores, torch.zeros_like(labels), 0.5)


def test_equal_scores_in_a_large_class_are_taken_by_index():
    boxes, scores, labels = random_input(3000, 2)
    assert_like_torchvision(boxes, (scores * 4).round(), labels, 0.4)


def test_threshold_that_float32_cannot_hold():
    # IoU 3 / 10, in float32 0.300000012 > 0.3
    boxes = torch.tensor([[0.0, 0, 6.5, 1], [3.5, 0, 10, 1]])
    scores, labels = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64)
    assert batched_nms(boxes, scores, labels, 0.3).tolist() == [0]
    assert batched_nms(boxes, scores, labels, 0.30000002).tolist() == [0, 1]
    assert_like_torchvision(boxes, scores, labels, 0.3)


def test_a_chain_keeps_every_other_box():
    # box i overlaps i ± 1 only: as many rounds as boxes
    x = torch.arange(1500) * 40.0
    boxes = torch.stack([x, 0 * x, x + 100, 0 * x + 100], dim=1)
    kept = batched_nms(boxes, torch.linspace(1, 0, 1500), torch.zeros(1500, dtype=torch.int64), 0.4)
    assert kept.tolist() == list(range(0, 1500, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_boxes_of_other_types_keep_what_float32_keeps(dtype):
    """A class far up would be shifted beyond float16, and to where bfloat16 resolves 512 pixels."""
    boxes = torch.tensor([[1000.0, 1000, 1096, 1096], [1008, 1000, 1104, 1096], [8, 8, 24, 24]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([79, 79, 79])
    assert batched_nms(boxes.to(dtype), scores, labels, 0.5).tolist() == [0, 2]


def test_the_default_device_is_nothing_to_it():
    boxes, scores, labels = random_input(50, 3)
    expected = batched_nms(boxes, scores, labels, 0.5)
    with torch.device("meta"):
        assert torch.equal(batched_nms(boxes, scores, labels, 0.5), expected)


def test_nothing_in_nothing_out():
    kept = batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5)
    assert kept.shape == (0,) and kept.dtype == torch.int64


@pytest.mark.gpu
@pytest.mark.parametrize("n", [1000, 5000])
def test_gpu_keeps_what_the_cpu_keeps(n):
    boxes, scores, labels = random_input(n, 80)
    kept = batched_nms(boxes.cuda(), scores.cuda(), labels.cuda(), 0.5)
    assert torch.equal(kept.cpu(), batched_nms(boxes, scores, labels, 0.5))


@pytest.mark.slow
def test_at_most_three_times_torchvisions_time():
    arguments = (*random_input(5000, 80), 0.5)
    seconds = {batched_nms: [], ops.batched_nms: []}
    for _ in range(31):
        for function, times in seconds.items():
            start = time.perf_counter()
            function(*arguments)
            times.append(time.perf_counter() - start)
    assert statistics.median(seconds[batched_nms]) <= 3 * statistics.median(seconds[ops.batched_nms])


@pytest.mark.parametrize("block", [2, 3, 5])
def test_an_overlap_of_the_threshold_itself_suppresses_nothing_in_any_block(monkeypatch, block):
    monkeypatch.setattr(nms, "_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        corner = torch.randint(0, 9, (60, 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(0, 6, (60, 2), generator=generator)], 1).float()
        scores = torch.randint(1, 4, (60,), generator=generator) / 4
        for threshold in (0.0, 0.25, 0.5):
            assert_like_torchvision(boxes, scores, torch.zeros(60, dtype=torch.int64), threshold)
