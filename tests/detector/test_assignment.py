"""Assignments in bounded memory: the same to the bit however the objects are cut, and one crowd costs only itself."""

import pytest
import torch
from operation_counter import OperationCounter

from detector.anchors import AnchorGenerator
from detector.assignment import assign_targets
from detector.boxes import pair_chunks
from detector.matcher import ATSSMatcher, MaxIoUMatcher
from detector.monitor import best_reference_ious

LEVELS = AnchorGenerator((8, 16), ratios=(0.5, 1.0))([(12, 12), (6, 6)])
NUM_ANCHORS = sum(map(len, LEVELS))
MATCHERS = [MaxIoUMatcher(), ATSSMatcher()]


def image(num_objects: int, seed: int) -> dict[str, torch.Tensor]:
    """Objects on a coarse grid, many of them equal or tied; a fifth are crowds."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 10, (num_objects, 2), generator=generator) * 8.0
    size = torch.randint(1, 5, (num_objects, 2), generator=generator) * 8.0
    return {
        "boxes": torch.cat([corner, corner + size], dim=1),
        "labels": torch.randint(0, 3, (num_objects,), generator=generator),
        "crowd": torch.rand(num_objects, generator=generator) < 0.2,
    }


@pytest.mark.parametrize("counts", [[3, 0, 7, 1, 4], [2, 90, 0, 5], [60]], ids=str)
@pytest.mark.parametrize("most", [NUM_ANCHORS - 1, 7 * NUM_ANCHORS, 20 * NUM_ANCHORS])
@pytest.mark.parametrize("matcher", MATCHERS)
def test_is_the_same_in_chunks_of_any_size(matcher, most, counts, monkeypatch):
    targets = [image(num_objects, seed) for seed, num_objects in enumerate(counts)]
    whole = assign_targets(matcher, LEVELS, targets, 3, True)
    monkeypatch.setattr("detector.boxes.MAX_PAIRS", most)
    cut = assign_targets(matcher, LEVELS, targets, 3, True)
    assert len(whole.images) and (whole.cls_targets == -1).any()
    assert all(torch.equal(*pair) for pair in zip(whole, cut, strict=True))


@pytest.mark.parametrize("matcher", MATCHERS)
def test_a_crowded_image_does_not_pad_the_others(matcher, monkeypatch):
    monkeypatch.setattr("detector.boxes.MAX_PAIRS", 30 * NUM_ANCHORS)
    targets = [image(5, 0), image(1500, 1), *(image(5, seed) for seed in range(2, 16))]
    with OperationCounter() as operations:
        assign_targets(matcher, LEVELS, targets, 3, True)
    # the padded boxes, and few bytes for each pair of a chunk; all pairs of the padded batch would be 800 chunks
    assert max(operations.sizes) <= max(16 * 16 * 1500, 16 * 30 * NUM_ANCHORS)
    assert sum(size >= 4 * 4 * NUM_ANCHORS for size in operations.sizes) < 40 * (16 + 1500 / 30 + 16)


@pytest.mark.parametrize(
    ("most", "counts"), [(100, [25, 0, 3, 12]), (250, [1, 25] + [2] * 14)], ids=["image too large", "padding too large"]
)
def test_chunks_cover_every_box_once_and_no_padding(most, counts, monkeypatch):
    monkeypatch.setattr("detector.boxes.MAX_PAIRS", most)
    boxes = torch.zeros(len(counts), 25, 4)
    for number, end in enumerate(counts):
        boxes[number, :end] = 1
    seen = torch.zeros(len(counts), 25, dtype=torch.int64)
    for images, chunk in pair_chunks(boxes, 10):
        assert boxes[images, chunk].shape[:2].numel() * 10 <= most
        seen[images, chunk] += 1
    assert torch.equal(seen, (boxes[..., 0] > 0).long())
    assert not list(pair_chunks(torch.zeros(2, 0, 4), 10)) and not list(pair_chunks(boxes, 0))


def test_an_ordinary_batch_is_cut_into_few_chunks_of_whole_images(monkeypatch):
    monkeypatch.setattr("detector.boxes.MAX_PAIRS", 100)
    chunks = list(pair_chunks(torch.zeros(8, 4, 4), 10))  # 320 pairs, of images with 40
    assert chunks == [(slice(first, first + 2), slice(0, 4)) for first in (0, 2, 4, 6)]


def test_best_references_in_chunks(monkeypatch):
    references, boxes = torch.cat(LEVELS), image(40, 0)["boxes"]
    whole = best_reference_ious(references, boxes)
    monkeypatch.setattr("detector.monitor.MAX_PAIRS", 3 * NUM_ANCHORS)
    assert torch.equal(best_reference_ious(references, boxes), whole)
    assert best_reference_ious(references, boxes[:0]).shape == (0,)
