"""detector/boxes.py against torchvision and against the laws its docstrings state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder

from detector.boxes import (
    MAX_LOG_RATIO,
    TORCHVISION_CODING,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    intersection_over_area,
    pairwise_iou,
)


def random_boxes(n: int, seed: int, scale: float = 100.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * scale
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=generator) * scale], dim=1)


def test_pairwise_iou_is_torchvisions_bit_for_bit():
    boxes1, boxes2 = random_boxes(50, 0), random_boxes(70, 1)
    assert torch.equal(pairwise_iou(boxes1, boxes2), ops.box_iou(boxes1, boxes2))


def test_pairwise_iou_takes_leading_axes():
    boxes1, boxes2 = random_boxes(12, 0).view(3, 4, 4), random_boxes(15, 1).view(3, 5, 4)
    expected = torch.stack([ops.box_iou(a, b) for a, b in zip(boxes1, boxes2, strict=True)])
    assert torch.equal(pairwise_iou(boxes1, boxes2), expected)


def test_intersection_over_area_is_a_share_of_the_first_box():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 2, 2], [50, 50, 60, 60], [3, 3, 3, 3]])
    region = torch.tensor([[0.0, 0, 5, 10]])
    assert intersection_over_area(boxes, region).squeeze(1).tolist() == [0.5, 1.0, 0.0, 0.0]


SIZES = st.floats(1.0, 500.0)
CORNERS = st.floats(-500.0, 500.0)


@settings(max_examples=100, deadline=None)
@given(*[CORNERS, CORNERS, SIZES, SIZES] * 2)
def test_decode_inverts_encode(x, y, w, h, anchor_x, anchor_y, anchor_w, anchor_h):
    ratios = torch.tensor([w / anchor_w, h / anchor_h], dtype=torch.float64)
    gt = torch.tensor([[x, y, x + w, y + h]], dtype=torch.float64)
    anchor = [[anchor_x, anchor_y, anchor_x + anchor_w, anchor_y + anchor_h]]
    anchor = torch.tensor(anchor, dtype=torch.float64)
    decoded = decode_boxes(encode_boxes(gt, anchor), anchor)
    if ratios.log().abs().max() < MAX_LOG_RATIO:
        torch.testing.assert_close(decoded, gt, rtol=1e-6, atol=1e-4)
    else:
        assert (decoded[0, 2:] > decoded[0, :2]).all()


def test_decode_by_hand():
    # anchor 20×40 centred at (10, 20); shifts 0.1·(1, -1) of its size; height times e^(0.2·ln(2)/0.2)
    deltas = torch.tensor([[1.0, -1.0, 0.0, torch.log(torch.tensor(2.0)).item() / 0.2]])
    decoded = decode_boxes(deltas, torch.tensor([[0.0, 0, 20, 40]]))
    torch.testing.assert_close(decoded, torch.tensor([[2.0, 16 - 40, 22.0, 16 + 40]]))


def test_decode_clamps_sizes_both_ways():
    deltas = torch.tensor([[0.0, 0, 1e4, -1e4]], requires_grad=True)
    decoded = decode_boxes(deltas, torch.tensor([[0.0, 0, 16, 1000]]))
    width, height = (decoded[0, 2:] - decoded[0, :2]).tolist()
    assert (width, height) == (pytest.approx(1000, rel=1e-4), pytest.approx(16, rel=1e-4))
    decoded.sum().backward()
    assert deltas.grad.isfinite().all()


def test_torchvisions_coding_is_torchvisions():
    anchors, gt_boxes = random_boxes(60, 7), random_boxes(60, 8)
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(
        encode_boxes(gt_boxes, anchors, TORCHVISION_CODING), coder.encode_single(gt_boxes, anchors)
    )
    deltas = torch.randn(60, 4, generator=torch.Generator().manual_seed(9)) * 4  # some beyond the clamp, both ways
    expected = coder.decode_single(deltas, anchors)
    torch.testing.assert_close(decode_boxes(deltas, anchors, TORCHVISION_CODING), expected, rtol=1e-5, atol=1e-3)


def test_clip_to_the_height_and_width_of_each_image():
    boxes = torch.tensor([[-5.0, -5, 300, 300], [10, 10, 20, 20], [500, 10, 600, 20], [500, 10, 600, 20]])
    clipped = clip_boxes(boxes, torch.tensor([[100.0, 200], [100, 200], [100, 200], [15, 900]]))
    assert clipped.tolist() == [[0, 0, 200, 100], [10, 10, 20, 20], [200, 10, 200, 20], [500, 10, 600, 15]]
