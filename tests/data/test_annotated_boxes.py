"""Arithmetic of annotated boxes: the same for numbers, arrays and tensors, by hand on one box."""

import numpy as np
import pytest
import torch

from data.boxes import mirror_boxes, scale_boxes, to_xywh, to_xyxy

BOX = [[10.0, 20.0, 40.0, 25.0]]  # 30 wide, 5 high; in an image 100 wide and 50 high
KINDS = [np.array, torch.tensor]


def test_corners_and_sizes():
    assert to_xywh(*BOX[0]) == (10, 20, 30, 5)
    assert to_xyxy(10.0, 20.0, 30.0, 5.0) == (10, 20, 40, 25)
    assert [column.tolist() for column in to_xywh(*np.array(BOX).T)] == [[10], [20], [30], [5]]


@pytest.mark.parametrize("kind", KINDS)
def test_mirrors_keep_the_size_and_leave_the_boxes_alone(kind):
    boxes = kind(BOX)
    assert mirror_boxes(boxes, 100).tolist() == [[60, 20, 90, 25]]
    assert mirror_boxes(boxes, 50, vertical=True).tolist() == [[10, 25, 40, 30]]
    assert boxes.tolist() == BOX


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_is_by_axis(kind):
    boxes = kind(BOX)
    assert scale_boxes(boxes, (50, 100), (25, 400)).tolist() == [[40, 10, 160, 12.5]]
    assert boxes.tolist() == BOX


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes(kind):
    none = kind(BOX)[:0]
    assert mirror_boxes(none, 100).shape == scale_boxes(none, (1, 1), (2, 2)).shape == (0, 4)
