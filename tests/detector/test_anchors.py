"""detector/anchors.py: order, sizes, and the released models' anchors bit for bit."""

import numpy as np
import pytest
import torch
from torchvision.models.detection import anchor_utils as torchvision_anchors
from torchvision.models.detection.image_list import ImageList

from detector.anchors import AnchorGenerator

STRIDES = (8, 16, 32, 64, 128)
SHAPES_512 = [(512 // stride, 512 // stride) for stride in STRIDES]
RATIOS = {"max_iou": (0.5, 1.0, 2.0), "atss": (1.0,)}


@pytest.mark.parametrize("matcher", ["max_iou", "atss"])
def test_golden_anchors_are_bit_exact(shared, matcher):
    golden = np.load(sorted((shared / "golden/matcher").glob("*.npz"))[0])
    anchors = torch.cat(AnchorGenerator(STRIDES, RATIOS[matcher], (1.0, 2**0.5), 4.0)(SHAPES_512))
    assert len(anchors) == golden[f"{matcher}_num_anchors"]
    sample = anchors[golden[f"{matcher}_anchor_index"]]
    assert torch.equal(sample, torch.from_numpy(golden[f"{matcher}_anchor_boxes"]))


def test_order_is_row_column_ratio_scale_and_centres_are_on_the_grid():
    (anchors,) = AnchorGenerator((10,), (0.25, 1.0), (1.0, 2.0), 4.0)([(2, 3)])
    assert anchors.shape == (2 * 3 * 2 * 2, 4)
    anchors = anchors.view(2, 3, 2, 2, 4)
    for row, column, ratio, scale in np.ndindex(2, 3, 2, 2):
        side, height_over_width = 40 * (1, 2)[scale], (0.25, 1.0)[ratio]
        width, height = side / height_over_width**0.5, side * height_over_width**0.5
        x, y = column * 10, row * 10
        expected = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        assert anchors[row, column, ratio, scale].tolist() == expected


def test_repeated_and_changed_shapes():
    generator = AnchorGenerator((8, 16))
    first, again = generator([(4, 6), (2, 3)]), generator([(4, 6), (2, 3)])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [len(level) for level in generator([(2, 2), (1, 1)])] == [24, 6]
    assert [len(level) for level in generator([(4, 6), (2, 3)])] == [144, 36]


def test_wrong_number_of_levels():
    with pytest.raises(ValueError, match="2 feature maps for 5 strides"):
        AnchorGenerator(STRIDES)([(4, 4), (2, 2)])


@pytest.mark.parametrize("size", [(256, 320), (416, 800), (800, 1088), (32, 64)])
def test_whole_pixel_anchors_are_torchvisions(size):
    # of an image whose coarse maps are rounded up, cells are not a stride apart there
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    theirs = torchvision_anchors.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    shapes = [tuple(-(-side // stride) for side in size) for stride in STRIDES]
    maps = [torch.zeros(1, 1, *shape) for shape in shapes]
    (expected,) = theirs(ImageList(torch.zeros(1, 3, *size), [size]), maps)
    scales = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    assert torch.equal(torch.cat(AnchorGenerator(STRIDES, octave_scales=scales, whole_pixels=True)(shapes)), expected)
