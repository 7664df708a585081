"""Post-processing that can be exported finds what `PostProcessor` finds, ties and roundings included."""

import pytest
import torch

from detector import nms, padded
from detector.boxes import BoxCoding
from detector.nms import nms_of_images
from detector.padded import NOTHING, padded_detections, padded_nms
from detector.postprocess import PostProcessor


def crowded_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    """(2, count, 4) boxes on a coarse grid, whose overlaps hit round numbers."""
    corners = torch.randint(0, 12, (2, count, 2), generator=generator) * 5.0
    return torch.cat([corners, corners + torch.randint(1, 7, (2, count, 2), generator=generator) * 10.0], dim=2)


@pytest.mark.parametrize("iou_threshold", [0.5, 0.6])  # 0.6 is no float32: it is rounded down
def test_keeps_what_nms_of_images_keeps(iou_threshold):
    generator = torch.Generator().manual_seed(0)
    boxes = crowded_boxes(200, generator)
    scores = torch.randint(1, 40, (2, 200), generator=generator) / 40  # with ties
    labels = torch.randint(0, 3, (2, 200), generator=generator)
    images = torch.arange(2).repeat_interleave(200)
    expected = nms_of_images(boxes.flatten(0, 1), scores.flatten(), labels.flatten(), images, 2, iou_threshold)
    kept = padded_nms(boxes, scores, labels, iou_threshold, 200)
    for image in range(2):
        of_image = expected[images[expected] == image] - 200 * image
        assert 20 < len(of_image) < 190
        assert kept[image].tolist() == [*of_image.tolist(), *[NOTHING] * (200 - len(of_image))]
    few = padded_nms(boxes, scores.masked_fill(scores < 0.5, -1.0), labels, iou_threshold, 7)
    assert torch.equal(few, kept[:, :7])


@pytest.mark.parametrize("limit", [100, 200])
def test_classes_are_shifted_up_to_the_same_number_of_boxes(monkeypatch, limit):
    for module in (nms, padded):
        monkeypatch.setattr(module, "MAX_SHIFTED", limit)
    generator = torch.Generator().manual_seed(0)
    boxes = crowded_boxes(200, generator)[0] + torch.rand(200, 4, generator=generator)
    scores = torch.rand(200, generator=generator)
    labels = torch.randint(0, 3, (200,), generator=generator) * 2_000_000  # so far apart that coordinates round
    expected = nms.batched_nms(boxes, scores, labels, 0.5)
    kept = padded_nms(boxes[None], scores[None], labels[None], 0.5, 200)[0]
    assert kept[kept != NOTHING].tolist() == expected.tolist()
    monkeypatch.setattr(nms, "MAX_SHIFTED", 300 - limit)
    assert nms.batched_nms(boxes, scores, labels, 0.5).tolist() != expected.tolist()


@pytest.mark.parametrize("topk_candidates", [10, 1000])
@pytest.mark.parametrize("score_thresh", [0.0, 0.7, 1.0])
def test_finds_what_the_post_processor_finds(topk_candidates, score_thresh):
    generator = torch.Generator().manual_seed(1)
    postprocess = PostProcessor(score_thresh, topk_candidates, 0.5, 30, BoxCoding())
    references = [crowded_boxes(count, generator)[0] for count in (40, 12, 1)]
    scores = torch.rand(2, 53, 3, generator=generator)
    scores[0, :5] = scores[0, 0]
    box_deltas = torch.randn(2, 53, 4, generator=generator) / 3
    sizes = [(60, 90), (33, 20)]
    expected = postprocess.of_scores(scores, box_deltas, references, sizes)
    found = padded_detections(postprocess, scores, box_deltas, references, torch.tensor(sizes))
    for boxes, image_scores, labels, one in zip(*found, expected, strict=True):
        count = len(one["scores"])
        assert count == 0 if score_thresh == 1.0 else count > 5
        assert torch.equal(labels, torch.cat([one["labels"], torch.full((30 - count,), NOTHING)]))
        assert torch.equal(boxes[:count], one["boxes"]) and torch.equal(image_scores[:count], one["scores"])
        assert not boxes[count:].any() and not image_scores[count:].any()
