"""Which object each point has to predict: the released code's assignments, hand-worked cases, batches."""

import numpy as np
import pytest
import torch
from fcos_grids import cells_of, points_of

from detector.boxes import Coding
from detector.fcos import assign_points
from detector.fcos.build import STRIDES
from detector.fcos.points import DistanceCoding, PointMatcher, centerness
from losses.overlaps import box_center


def test_points_are_the_middles_of_cells_of_one_stride():
    for cells, points, stride in zip(cells_of((96, 160)), points_of((96, 160)), STRIDES, strict=True):
        assert torch.equal(box_center(cells), points)
        assert (cells[:, 2:] - cells[:, :2] == stride).all()


@pytest.mark.parametrize("case", ["imprv", "imprv_lattice", "base", "base_lattice"])
def test_equals_the_released_code(shared, case):
    golden = np.load(shared / "golden/fcos" / f"assign_{case}.npz")
    points, boxes = points_of(tuple(golden["image_size"].tolist())), torch.from_numpy(golden["boxes"])
    assert sum(map(len, points)) == golden["num_points"]
    matches = assign_points(points, STRIDES, boxes, None if case.startswith("base") else 1.5)
    positives = (matches >= 0).nonzero().squeeze(1)
    assert positives.tolist() == golden["positives"].tolist()
    assert matches[positives].tolist() == golden["matched_box"].tolist()

    cells = torch.cat(cells_of(tuple(golden["image_size"].tolist())))[positives]
    coding = DistanceCoding(in_strides=not case.startswith("base"))
    distances = coding.encode(boxes[matches[positives]].double(), cells.double())
    assert torch.equal(distances, torch.from_numpy(golden["targets"]))


def test_cases_worked_by_hand():
    points = [torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0], [28.0, 4.0]])]
    # Within 12 pixels of the middle of both boxes, x = 14, are 4, 12 and 20; the second is smaller and takes its own.
    boxes = torch.tensor([[0.0, 0, 28, 8], [7.5, 0, 20.5, 8]])
    assert assign_points(points, (8,), boxes, 1.5, ()).tolist() == [0, 1, 1, -1]
    assert assign_points(points, (8,), boxes[[1, 1, 0]], 1.5, ()).tolist() == [2, 0, 0, -1]
    # The border does not belong to a box.
    assert assign_points(points, (8,), torch.tensor([[4.0, 0, 20, 8]]), None, ()).tolist() == [-1, 0, -1, -1]


def test_both_ends_of_a_range_belong_to_it():
    points = [torch.tensor([[64.0, 8.0]])] * 5  # 64 pixels from the left side
    box = torch.tensor([[0.0, 0, 70, 16]])
    assert assign_points(points, STRIDES, box, None).tolist() == [0, 0, -1, -1, -1]
    assert assign_points(points, STRIDES, box, None, (16, 32, 63, 128)).tolist() == [-1, -1, -1, 0, -1]


def test_images_of_a_batch_are_alone_and_padding_matches_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 9, 2, generator=generator) * 200
    boxes = torch.cat([corners, corners + 4 + torch.rand(3, 9, 2, generator=generator) * 150], dim=2)
    boxes[1, 4:] = 0
    boxes[2] = 0
    matcher, cells = PointMatcher(STRIDES, 1.5, (64, 128, 256, 512)), cells_of((256, 320))
    together = matcher(cells, boxes)
    alone = [matcher(cells, boxes[0]), matcher(cells, boxes[1, :4]), matcher(cells, boxes[2, :0])]
    assert torch.equal(together, torch.stack(alone))
    assert (together[:2] >= 0).any(dim=1).all() and (together[2] == -1).all()
    monkeypatch.setattr("detector.boxes.MAX_PAIRS", 2000)
    assert torch.equal(matcher(cells, boxes), together)


@pytest.mark.parametrize("in_strides", [True, False])
def test_distances_are_decoded_to_the_boxes_that_they_were_encoded_from(in_strides):
    coding: Coding = DistanceCoding(in_strides)
    cells = torch.tensor([[8.0, 0, 16, 8], [64, 32, 96, 64]])
    boxes = torch.tensor([[0.0, 1, 20, 30], [70, 40, 100, 90]])
    encoded = coding.encode(boxes, cells)
    assert encoded[0].tolist() == [v / (8 if in_strides else 1) for v in (12, 3, 8, 26)]
    assert torch.allclose(coding.decode(encoded, cells), boxes)


def test_centerness():
    # √(2/6 · 1/1) at a third of the way, 1 in the middle
    points, boxes = torch.tensor([[2.0, 4.0], [4.0, 4.0]]), torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 8]])
    assert centerness(points, boxes).tolist() == pytest.approx([(2 / 6) ** 0.5, 1])
