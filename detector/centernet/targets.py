"""What the maps of CenterNet should show: cells of keypoints, offsets in them, and heat around them.

B images, N objects of all of them, K classes, maps of h rows and w columns; keypoints in the order of
`detector.centernet.head.KEYPOINTS`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detector.assignment import CROWD_COVERAGE
from detector.boxes import MAX_PAIRS
from losses.overlaps import box_center

MIN_IOU = 0.7  # of an object and a box whose corners lie within the radius of its own, or about that
DIAMETERS_PER_SIGMA = (6.0, 6.0, 5.0)  # of the heat around corners and, as in the released code, around centres


class KeypointTargets(NamedTuple):
    """Targets of a batch: heat (B, 3, K, h, w), 1 in the cell of a keypoint, -1 where ignored; and of N objects image
    (N,), cells (N, 3, 2) int64, (column, row) of each keypoint, and offsets (N, 3, 2) in 0..1 within these."""

    heat: Tensor
    image: Tensor
    cells: Tensor
    offsets: Tensor


@torch.no_grad()
def keypoint_targets(
    targets: Sequence[dict[str, Any]],
    num_classes: int,
    image_size: tuple[int, int],
    map_size: tuple[int, int],
    ignore_crowd: bool = False,
) -> KeypointTargets:
    """Targets of a batch, of its objects: without crowd regions, and without boxes that have no area in the image.

    Args:
        targets: per image "boxes" (n, 4) xyxy pixels, "labels" (n,), "crowd" (n,) bool.
        image_size: (height, width) pixels. map_size: (h, w).
        ignore_crowd: ignore cells that a crowd region covers by half or more, in the region's class.
    """
    boxes, labels, crowd = (torch.cat([target[key] for target in targets]) for key in ("boxes", "labels", "crowd"))
    counts = torch.tensor([len(target["boxes"]) for target in targets], device=boxes.device)
    image = torch.arange(len(targets), device=boxes.device).repeat_interleave(counts, output_size=len(boxes))
    height, width = image_size
    scale = boxes.new_tensor([map_size[1] / width, map_size[0] / height], dtype=torch.float64)
    # cut at the last pixel, so that every corner has a cell
    inside = boxes.clamp(min=0).minimum(boxes.new_tensor([width - 1, height - 1]).repeat(2))
    kept = ((inside[:, 2:] > inside[:, :2]).all(dim=1) & ~crowd).nonzero().squeeze(1)

    own, plane = inside[kept], image[kept] * num_classes + labels[kept]
    # in float64, so that a cell is the right one whatever the size of the image
    points = torch.stack([own[:, :2], own[:, 2:], box_center(own)], dim=1) * scale  # (N, 3, 2)
    cells = points.floor()
    heat = boxes.new_zeros(3, len(targets) * num_classes, *map_size)
    radii = gaussian_radius(((own[:, 2:] - own[:, :2]) * scale).ceil()).floor().to(heat.dtype)
    for of_map, centers, diameters in zip(heat, cells.to(heat.dtype).unbind(1), DIAMETERS_PER_SIGMA, strict=True):
        _draw(of_map, plane, centers, radii, diameters)
    heat = heat.view(3, len(targets), num_classes, *map_size).transpose(0, 1)
    if ignore_crowd:
        regions, plane = boxes[crowd] * scale.repeat(2), image[crowd] * num_classes + labels[crowd]
        covered = _covered(regions, plane, heat[:, 0].flatten(0, 1)).view_as(heat[:, 0])
        heat = torch.where(covered[:, None] & (heat < 1), -1.0, heat)
    return KeypointTargets(heat, image[kept], cells.long(), (points - cells).float())


def gaussian_radius(sizes: Tensor) -> Tensor:
    """How far corners may move, in cells: (N, 2) widths and heights of objects, in cells, to (N,) >= 0.

    Of three ways to move two corners, the least. As in the released code of CornerNet none of the roots is divided by
    its leading coefficient.
    """
    total, area = sizes.sum(dim=1), sizes.prod(dim=1)
    ways = (  # (a, b, c) of a quadratic equation for the radius, in ascending overlap of the boxes
        (1.0, total, area * (1 - MIN_IOU) / (1 + MIN_IOU)),
        (4.0, 2 * total, (1 - MIN_IOU) * area),
        (4 * MIN_IOU, -2 * MIN_IOU * total, (MIN_IOU - 1) * area),
    )
    roots = [(b + (b.square() - 4 * a * c).sqrt()) / 2 for a, b, c in ways]
    return torch.stack(roots).amin(dim=0).clamp(min=0)


def _draw(heat: Tensor, plane: Tensor, centers: Tensor, radii: Tensor, diameters_per_sigma: float) -> None:
    """Draws a Gaussian in the square of ± its radius around each cell, where that is more than what is there.

    Args:
        heat: (B·K, h, w), written to. plane: (N,) which of the B·K. centers: (N, 2), radii: (N,), in whole cells.
    """
    sigma = (2 * radii + 1) / diameters_per_sigma
    flat = heat.view(len(heat), -1)
    step = max(1, MAX_PAIRS // flat.shape[1])
    for first in range(0, len(plane), step):
        rows = slice(first, first + step)
        along = []
        for axis, size in ((0, heat.shape[2]), (1, heat.shape[1])):
            distance = torch.arange(size, device=heat.device) - centers[rows, axis, None]
            value = (-distance.square() / (2 * sigma[rows, None].square())).exp()
            along.append(value * (distance.abs() <= radii[rows, None]))  # (n, w) and (n, h)
        values = (along[1][:, :, None] * along[0][:, None]).flatten(1)
        flat.scatter_reduce_(0, plane[rows, None].expand_as(values), values, "amax")


def _covered(regions: Tensor, plane: Tensor, like: Tensor) -> Tensor:
    """(B·K, h, w) bool, which cells some region (R, 4), in cells, of that plane (R,) covers by half or more."""
    shares = []
    for axis, size in ((0, like.shape[2]), (1, like.shape[1])):
        cell = torch.arange(size, device=like.device)
        overlap = torch.minimum(regions[:, axis + 2, None], cell + 1) - torch.maximum(regions[:, axis, None], cell)
        shares.append(overlap.clamp(min=0))
    covered = torch.zeros(like.shape, dtype=torch.bool, device=like.device)
    for index, (columns, rows) in enumerate(zip(*shares, strict=True)):
        covered[plane[index]] |= rows[:, None] * columns >= CROWD_COVERAGE
    return covered
