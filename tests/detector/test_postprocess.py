"""detector/postprocess.py against the same selection written with loops and torchvision."""

import torch
from torchvision import ops

from detector.anchors import AnchorGenerator
from detector.boxes import decode_boxes
from detector.postprocess import PostProcessor

SHAPES, STRIDES = [(8, 12), (4, 6)], (8, 16)
IMAGE_SIZE = (64, 96)


def outputs(num_classes: int = 5, batch: int = 1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    anchors_per_level = AnchorGenerator(STRIDES)(SHAPES)
    num_anchors = sum(len(anchors) for anchors in anchors_per_level)
    cls_logits = torch.randn(batch, num_anchors, num_classes, generator=generator) * 2 - 3
    box_deltas = torch.randn(batch, num_anchors, 4, generator=generator)
    return cls_logits, box_deltas, anchors_per_level


def detect_by_loops(cls_logits, box_deltas, anchors_per_level, topk, keep_at_most):
    entries, first = [], 0
    scores = cls_logits.sigmoid()
    for anchors in anchors_per_level:
        level = [
            (-scores[a, k].item(), a, k)
            for a in range(first, first + len(anchors))
            for k in range(scores.shape[1])
            if scores[a, k] > 0.05
        ]
        entries += sorted(level)[:topk]
        first += len(anchors)
    anchor_index, labels = torch.tensor([e[1] for e in entries]), torch.tensor([e[2] for e in entries])
    scores = scores[anchor_index, labels]
    boxes = decode_boxes(box_deltas[anchor_index], torch.cat(anchors_per_level)[anchor_index])
    boxes = ops.clip_boxes_to_image(boxes, IMAGE_SIZE)
    keep = ops.batched_nms(boxes, scores, labels, 0.5)[:keep_at_most]
    return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}


def test_detections_are_those_of_the_loop():
    cls_logits, box_deltas, anchors_per_level = outputs()
    postprocess = PostProcessor(topk_candidates=200, detections_per_img=30)
    (found,) = postprocess(cls_logits, box_deltas, anchors_per_level, [IMAGE_SIZE])
    expected = detect_by_loops(cls_logits[0], box_deltas[0], anchors_per_level, 200, 30)
    assert len(found["scores"]) == 30
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_each_image_is_clipped_to_its_own_size():
    cls_logits, box_deltas, anchors_per_level = outputs(batch=2)
    sizes = [(64, 96), (20, 30)]
    first, second = PostProcessor()(cls_logits, box_deltas, anchors_per_level, sizes)
    assert first["boxes"].amax(dim=0)[2:].tolist() == [96, 64]
    assert second["boxes"].amax(dim=0)[2:].tolist() == [30, 20]
    assert second["boxes"].min() == 0


def test_batched_equals_single():
    cls_logits, box_deltas, anchors_per_level = outputs(batch=3)
    together = PostProcessor()(cls_logits, box_deltas, anchors_per_level, [IMAGE_SIZE] * 3)
    for i, detections in enumerate(together):
        (alone,) = PostProcessor()(cls_logits[i : i + 1], box_deltas[i : i + 1], anchors_per_level, [IMAGE_SIZE])
        assert all(torch.equal(detections[key], alone[key]) for key in alone)


def test_equal_scores_go_to_the_lower_flat_index():
    cls_logits, box_deltas, anchors_per_level = outputs(num_classes=3)
    postprocess = PostProcessor(topk_candidates=4, nms_thresh=1.0, detections_per_img=100)
    cls_logits, box_deltas = torch.zeros_like(cls_logits), torch.zeros_like(box_deltas)
    (found,) = postprocess(cls_logits, box_deltas, anchors_per_level, [(1000, 1000)])
    # four entries of either level: all classes of its first anchor, one of its second
    assert found["labels"].tolist() == [0, 1, 2, 0] * 2
    first = [anchors_per_level[0][i].clamp(min=0) for i in (0, 0, 0, 1)]
    second = [anchors_per_level[1][i].clamp(min=0) for i in (0, 0, 0, 1)]
    torch.testing.assert_close(found["boxes"], torch.stack(first + second))


def test_the_threshold_is_exclusive_and_nothing_is_a_valid_answer():
    cls_logits, box_deltas, anchors_per_level = outputs()
    (found,) = PostProcessor(score_thresh=0.5)(
        torch.zeros_like(cls_logits), box_deltas, anchors_per_level, [IMAGE_SIZE]
    )
    assert found["boxes"].shape == (0, 4) and found["scores"].shape == found["labels"].shape == (0,)
    assert found["labels"].dtype == torch.int64


def test_logits_that_are_not_finite_are_no_detections():
    cls_logits, box_deltas, anchors_per_level = outputs()
    nan = torch.full_like(cls_logits, torch.nan)
    (found,) = PostProcessor()(nan, box_deltas, anchors_per_level, [IMAGE_SIZE])
    assert len(found["scores"]) == 0
