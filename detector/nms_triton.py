"""`search_best` of `detector/padded.py` as one Triton kernel, not a dozen launches for each box that is kept."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from losses.triton_support import power_of_two

NUM_WARPS = 32


def search_best_kernel(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, num_kept: int) -> Tensor:
    """`search_best` with its arguments, of float32 boxes and scores: one program an image, N a few thousand."""
    num_images, num_candidates = scores.shape
    boxes, scores, labels = boxes.contiguous(), scores.contiguous(), labels.to(torch.int32).contiguous()
    kept = torch.full((num_images, num_kept), -1, dtype=torch.int64, device=boxes.device)
    block = power_of_two(num_candidates)
    with torch.cuda.device_of(boxes):
        # A product and a sum in one rounding would give other IoUs than PyTorch's operators.
        _nms[(num_images,)](
            *(boxes, scores, labels, kept, num_candidates, num_kept, threshold, block),
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,
        )
    return kept


@triton.jit(do_not_specialize=["num_candidates", "num_kept", "threshold"])
def _nms(boxes, scores, labels, kept, num_candidates, num_kept, threshold, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * num_candidates
    rank = tl.arange(0, BLOCK)
    inside = rank < num_candidates
    x1 = tl.load(boxes + 4 * (first + rank), mask=inside, other=0)
    y1 = tl.load(boxes + 4 * (first + rank) + 1, mask=inside, other=0)
    x2 = tl.load(boxes + 4 * (first + rank) + 2, mask=inside, other=0)
    y2 = tl.load(boxes + 4 * (first + rank) + 3, mask=inside, other=0)
    area = (x2 - x1) * (y2 - y1)
    label = tl.load(labels + first + rank, mask=inside, other=-1)
    score = tl.load(scores + first + rank, mask=inside, other=-1)
    highest, best = tl.max(score, axis=0, return_indices=True)  # the first of equal ones
    row = 0
    while (row < num_kept) & (highest >= 0):
        tl.store(kept + tl.program_id(0) * num_kept + row, best.to(tl.int64))
        place = first + best
        left, top = tl.load(boxes + 4 * place), tl.load(boxes + 4 * place + 1)
        right, bottom = tl.load(boxes + 4 * place + 2), tl.load(boxes + 4 * place + 3)
        width = tl.maximum(tl.minimum(x2, right) - tl.maximum(x1, left), 0.0)
        height = tl.maximum(tl.minimum(y2, bottom) - tl.maximum(y1, top), 0.0)
        iou = tl.div_rn(width * height, (right - left) * (bottom - top) + area - width * height)
        suppressed = (iou > threshold) & (label == tl.load(labels + place))
        score = tl.where(suppressed | (rank == best), -1.0, score)
        highest, best = tl.max(score, axis=0, return_indices=True)
        row += 1
