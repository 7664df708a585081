"""detector/backbones/fpn.py and head.py: shapes, order, and the start values."""

import math

import pytest
import torch

from detector.backbones.fpn import FPN
from detector.retinanet.head import RetinaNetHead


def features(height: int, width: int, channels=(4, 6, 8)) -> list[torch.Tensor]:
    return [torch.randn(2, c, height // s, width // s) for c, s in zip(channels, (8, 16, 32), strict=True)]


def test_pyramid_shapes():
    outputs = FPN((4, 6, 8), 16)(features(96, 160))
    assert [tuple(p.shape) for p in outputs] == [
        (2, 16, 12, 20),
        (2, 16, 6, 10),
        (2, 16, 3, 5),
        (2, 16, 2, 3),
        (2, 16, 1, 2),
    ]


def test_relu_before_p7_is_a_switch():
    torch.manual_seed(0)
    inputs, without = features(128, 128), FPN((4, 6, 8), 16)
    with_relu = FPN((4, 6, 8), 16, p7_relu=True)
    with_relu.load_state_dict(without.state_dict())
    a, b = without(inputs), with_relu(inputs)
    assert all(torch.equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))
    torch.testing.assert_close(b[4], without.p7(a[3].clamp(min=0)))
    assert not torch.allclose(a[4], b[4])


def test_p6_from_p5_is_a_switch():
    torch.manual_seed(0)
    fpn = FPN((4, 6, 8), 16, p6_from="p5")
    outputs = fpn(features(128, 128))
    torch.testing.assert_close(outputs[3], fpn.p6(outputs[2]))
    assert fpn.p6.in_channels == 16 and FPN((4, 6, 8), 16).p6.in_channels == 8


def test_top_down_path_is_nearest_neighbour():
    fpn = FPN((1, 1, 1), 1)
    for conv in fpn.lateral_convs:
        torch.nn.init.ones_(conv.weight)
    for conv in fpn.output_convs:
        conv.weight.data = torch.tensor([[[[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]]])
    c3, c4 = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)
    c5 = torch.tensor([[[[1.0, 2], [3, 4]]]])
    p3 = fpn([c3, c4, c5])[0][0, 0]
    assert torch.equal(p3, c5[0, 0].repeat_interleave(4, 0).repeat_interleave(4, 1))


def test_head_flattens_level_row_column_anchor_and_then_class():
    num_anchors, num_classes = 2, 3
    head = RetinaNetHead(4, num_anchors, num_classes, num_convs=0)
    maps = [torch.randn(1, 4, 2, 3), torch.randn(1, 4, 1, 2)]
    logits, deltas = head(maps)
    assert logits.shape == (1, (6 + 2) * num_anchors, num_classes) and deltas.shape == (1, 16, 4)
    level_maps, first = [head.cls_logits(x) for x in maps], 0
    for level in level_maps:
        _, _, height, width = level.shape
        for row in range(height):
            for column in range(width):
                for anchor in range(num_anchors):
                    channels = slice(anchor * num_classes, (anchor + 1) * num_classes)
                    index = first + (row * width + column) * num_anchors + anchor
                    assert torch.equal(logits[0, index], level[0, channels, row, column])
        first += height * width * num_anchors


def test_scores_start_at_the_prior():
    torch.manual_seed(0)
    logits, _ = RetinaNetHead(16, 6, 5, num_convs=2, prior=0.01)([torch.rand(1, 16, 8, 8)])
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)
    head = RetinaNetHead(16, 6, 5)
    assert torch.all(head.cls_logits.bias == -math.log(99))
    assert head.cls_logits.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_group_norm_keeps_the_signal_of_narrow_towers():
    torch.manual_seed(0)
    features = [torch.rand(2, 32, 8, 8)]
    plain, normed = (RetinaNetHead(32, 6, 5, group_norm=group_norm)(features)[0] for group_norm in (False, True))
    assert plain.std() < 1e-4 < 1e-2 < normed.std()


def test_group_norm_of_32_channels_takes_a_single_cell():
    head = RetinaNetHead(32, 6, 5, group_norm=True)
    logits, _ = head([torch.randn(1, 32, 1, 1)])
    logits.sum().backward()
    assert logits.isfinite().all() and head.cls_tower[0].weight.grad.isfinite().all()
    towers = [RetinaNetHead(channels, 1, 1, 1, group_norm=True).cls_tower for channels in (32, 64, 128)]
    assert [tower[1].num_groups for tower in towers] == [16, 32, 32]
