"""detector/matcher.py: the authors' assignments, and both rules written out as loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from detector.anchors import AnchorGenerator
from detector.matcher import ATSSMatcher, MaxIoUMatcher

SHAPES_512 = [(512 // stride, 512 // stride) for stride in (8, 16, 32, 64, 128)]
CASES = {"max_iou": (MaxIoUMatcher, (0.5, 1.0, 2.0)), "atss": (ATSSMatcher, (1.0,))}


@pytest.mark.parametrize("name", CASES)
def test_golden_assignments_agree_completely(shared, name):
    matcher, ratios = CASES[name]
    anchors_per_level = AnchorGenerator(ratios=ratios)(SHAPES_512)
    files = sorted((shared / "golden/matcher").glob("*.npz"))
    assert len(files) == 12
    for file in files:
        golden = np.load(file)
        expected = torch.full((golden[f"{name}_num_anchors"].item(),), -1)
        value = torch.from_numpy(golden[f"{name}_nonzero_value"]).long()
        value = torch.where(value > 0, value - 1, -2)  # stored: k > 0 is object k - 1, -1 is ignored
        expected[torch.from_numpy(golden[f"{name}_nonzero_index"]).long()] = value
        matches = matcher()(anchors_per_level, torch.from_numpy(golden["gt_boxes"]))
        assert torch.equal(matches, expected), file.name


def max_iou_by_loops(anchors: torch.Tensor, gt_boxes: torch.Tensor) -> list[int]:
    iou = box_iou(gt_boxes, anchors)
    matches = []
    for a in range(len(anchors)):
        best = iou[:, a].max().item()
        matches.append(iou[:, a].tolist().index(best) if best >= 0.5 else -1 if best < 0.4 else -2)
    for g in range(len(gt_boxes)):
        for a in range(len(anchors)):
            if iou[g, a] == iou[g].max() and iou[g].max() > 0:
                matches[a] = g
    return matches


# boxes on a coarse grid, so that exact ties are the rule
GRID_BOX = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 4)] * 2).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(GRID_BOX, min_size=1, max_size=25), st.lists(GRID_BOX, min_size=1, max_size=6))
def test_max_iou_is_the_loop(anchors, gt_boxes):
    anchors = torch.tensor(anchors, dtype=torch.float32)
    gt_boxes = torch.tensor(gt_boxes, dtype=torch.float32)
    half = len(anchors) // 2
    matches = MaxIoUMatcher()([anchors[:half], anchors[half:]], gt_boxes)
    assert matches.tolist() == max_iou_by_loops(anchors, gt_boxes)


def test_an_iou_of_a_threshold_itself_is_on_its_upper_side():
    anchors, half = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 5]])
    for positive_iou, negative_iou, expected in ((0.5, 0.4, 0), (0.75, 0.5, -2), (0.75, 0.625, -1)):
        matcher = MaxIoUMatcher(positive_iou, negative_iou, best_from=None)
        assert matcher([anchors], half).tolist() == [expected]


def test_later_objects_take_tied_anchors_and_untouched_objects_get_none():
    anchors = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [500, 500, 510, 510]])
    assert MaxIoUMatcher()([anchors], gt_boxes).tolist() == [1, -1]


def atss_by_loops(levels: list[torch.Tensor], gt_boxes: torch.Tensor, per_level: int = 9) -> list[int]:
    anchors = torch.cat(levels).double()
    iou = box_iou(gt_boxes.double(), anchors)
    owner, owner_iou = [-1] * len(anchors), [0.0] * len(anchors)
    for g, (x1, y1, x2, y2) in enumerate(gt_boxes.tolist()):
        candidates, first = [], 0
        for level in levels:
            centers = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in level.tolist()]
            distances = [np.hypot(x - (x1 + x2) / 2, y - (y1 + y2) / 2) for x, y in centers]
            candidates += [first + i for i in np.argsort(distances)[:per_level]]
            first += len(level)
        values = iou[g, candidates].numpy()
        threshold = values.mean() + values.std(ddof=1)
        for a in candidates:
            x, y = (anchors[a, 0] + anchors[a, 2]) / 2, (anchors[a, 1] + anchors[a, 3]) / 2
            inside = min(x - x1, y - y1, x2 - x, y2 - y) > 0.01
            if iou[g, a] >= threshold and inside and iou[g, a] > owner_iou[a]:
                owner[a], owner_iou[a] = g, iou[g, a].item()
    return owner


@pytest.mark.parametrize("seed", range(5))
def test_atss_is_the_loop(seed):
    # one anchor per centre and boxes off the grid: no ties for the ninth place
    levels = AnchorGenerator((8, 16, 32), (1.0,), (1.0,))([(12, 16), (6, 8), (3, 4)])
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(12, 2, generator=generator) * 90
    size = 6 + torch.rand(12, 2, generator=generator) * 50
    gt_boxes = torch.cat([corner, corner + size], dim=1)
    matches = ATSSMatcher()(levels, gt_boxes).tolist()
    assert matches == atss_by_loops(levels, gt_boxes)
    assert max(matches) >= 0


def test_atss_needs_the_centre_inside_by_a_margin():
    # the first anchor's centre lies on the corner of the box; mean + deviation of (v, 0, 0) is 0.91 v
    anchors = torch.tensor([[-10.0, -10, 10, 10], [90, 90, 110, 110], [190, 190, 210, 210]])
    assert ATSSMatcher()([anchors], torch.tensor([[0.0, 0, 20, 20]])).tolist() == [-1, -1, -1]
    assert ATSSMatcher()([anchors], torch.tensor([[-0.02, -0.02, 20, 20]])).tolist() == [0, -1, -1]


def test_atss_with_a_single_anchor():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    assert ATSSMatcher()([anchors], torch.tensor([[1.0, 1, 9, 9]])).tolist() == [0]


@pytest.mark.parametrize("matcher", [MaxIoUMatcher(), ATSSMatcher()])
def test_without_objects_everything_is_negative(matcher):
    levels = AnchorGenerator((8, 16))([(4, 4), (2, 2)])
    matches = matcher(levels, torch.zeros(0, 4))
    assert matches.dtype == torch.int64 and matches.tolist() == [-1] * (20 * 6)
