"""Post-processing on a GPU: in shapes that do not depend on what is found, so that the host waits once for a batch."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detector.padded import MASKED, NOTHING, PaddedDetections, search_best, thinned_out
from losses.triton_support import passes_trial, triton_works

if TYPE_CHECKING:
    from detector.postprocess import PostProcessor

MAX_CANDIDATES = 16384  # of an image: one program of the kernel holds them in its registers


def usable(scores: Tensor, num_candidates: int) -> bool:
    """Whether the kernel can take over from PyTorch's operators, for so many candidates an image at most."""
    on_gpu = scores.is_cuda and scores.dtype == torch.float32
    return on_gpu and num_candidates <= MAX_CANDIDATES and _kernel_works(scores.device)


@cache
def _kernel_works(device: torch.device) -> bool:
    """Tries it once against the operators."""
    if not triton_works(device):
        return False
    drawn: Any = {"generator": torch.Generator("cpu").manual_seed(0), "device": "cpu"}  # as another may be the default
    corners = 60 * torch.rand(2, 500, 2, **drawn)
    boxes = torch.cat([corners, corners + 60 * torch.rand(2, 500, 2, **drawn)], dim=2)
    scores, labels = torch.rand(2, 500, **drawn), torch.randint(0, 3, (2, 500), **drawn)

    def same_boxes() -> bool:
        from detector.nms_triton import search_best_kernel

        found = search_best_kernel(boxes.to(device), scores.to(device), labels.to(device), 0.5, 50)
        return torch.equal(found.cpu(), search_best(boxes, scores, labels, 0.5, 50))

    return passes_trial("NMS takes slower operators", same_boxes, "its kernel keeps other boxes here")


def kernel_detections(
    postprocess: "PostProcessor",
    scores: Tensor,
    box_deltas: Tensor,
    references_per_level: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    score_thresh: float,
) -> list[dict[str, Tensor]]:
    """`PostProcessor.of_scores` with its arguments.

    Where more than `topk_candidates` entries of a level tie for the last place, others of them may be chosen.
    """
    from detector.nms_triton import search_best_kernel

    num_classes = scores.shape[2]
    scores, first, chosen = scores.flatten(1), 0, []
    for level in references_per_level:
        size = len(level) * num_classes
        best = scores[:, first : first + size].topk(min(postprocess.topk_candidates, size), dim=1).indices
        # in the order of the level, so that the first of equal scores is the one that `PostProcessor` prefers
        chosen.append(best.sort(dim=1).values + first)
        first += size
    entries = torch.cat(chosen, dim=1)
    scores = scores.gather(1, entries)
    found = thinned_out(
        postprocess,
        scores.where(scores > score_thresh, MASKED),
        entries,
        num_classes,
        box_deltas,
        references_per_level,
        torch.tensor(image_sizes).to(scores.device, non_blocking=True),
        search_best_kernel,
    )
    return _cut(found)


def _cut(found: PaddedDetections) -> list[dict[str, Tensor]]:
    """The rows of each image that hold a detection."""
    counts = (found.labels != NOTHING).sum(dim=1).tolist()  # the one wait
    return [
        {"boxes": boxes[:count], "scores": scores[:count], "labels": labels[:count]}
        for boxes, scores, labels, count in zip(*found, counts, strict=True)
    ]
