"""Whether two detectors find the same, but for the order in which they round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torchvision.ops import box_iou

PASSES = 3  # a shape's graph is made when the shape comes again, and used from the third time on
SAME_IOU, SAME_SCORE = 0.99, 1e-3
SAME_CORNERS = 0.01  # pixels; boxes without area have no IoU

Found = list[dict[str, Tensor]]
Batch = TypeVar("Batch")


@contextmanager
def true_float32() -> Iterator[None]:
    """Convolutions and matrix products take float32 as it is, where PyTorch would round it to TF32's ten bits."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


def find_in_true_float32(cases: Mapping[str, Callable[[Batch], Found]], batches: Sequence[Batch]) -> dict[str, Found]:
    """What each case finds in the last of a few passes over the batches, in which CUDA graphs take part."""
    with true_float32():
        for _ in range(PASSES):
            found = {name: [each for batch in batches for each in run(batch)] for name, run in cases.items()}
    return found


def share_of_same(expected: Found, found: Found) -> float | None:
    """Share of the expected detections for which there is one of the same class, place and score; None of none."""
    same = total = 0
    for theirs, ours in zip(expected, found, strict=True):
        total += len(theirs["scores"])
        if len(ours["scores"]):
            near = box_iou(theirs["boxes"], ours["boxes"]) >= SAME_IOU
            near |= torch.cdist(theirs["boxes"], ours["boxes"], p=torch.inf) <= SAME_CORNERS
            near &= theirs["labels"][:, None] == ours["labels"]
            near &= (theirs["scores"][:, None] - ours["scores"]).abs() <= SAME_SCORE
            same += int(near.any(dim=1).sum())
    return same / total if total else None
