"""From the RPN's predictions to the regions that the second head looks at.

B images, A anchors of one image, N proposals of the image that has most.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detector.boxes import Coding, clip_boxes
from detector.nms import best_of_images

MIN_SIDE = 1e-3  # pixels; proposals with a shorter side have nothing to look at


class Proposer(NamedTuple):
    """Best anchors of each level, moved as predicted, clipped, and thinned out by NMS within their level.

    Attributes:
        coding: of the boxes.
        candidates: anchors that each level sends to NMS at most; candidates_train: the same in training.
        number: of proposals that remain of an image at most.
        nms_thresh: IoU above which the worse of two proposals of a level goes.
    """

    coding: Coding
    candidates: int = 1000
    candidates_train: int = 2000
    number: int = 1000
    nms_thresh: float = 0.7

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        box_deltas: Tensor,
        anchors_per_level: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        training: bool,
    ) -> Tensor:
        """Proposals of each image, which no gradient reaches.

        Args:
            logits: (B, A, 1) and box_deltas: (B, A, 4), float32.
            anchors_per_level: list of (n, 4), together (A, 4).
            image_sizes: (h, w) to which the boxes of each image are clipped.
        Returns:
            (B, N, 4), best first, padded with rows of zeros; of equal logits lower levels and anchors are first.
        """
        num_images, most = len(logits), self.candidates_train if training else self.candidates
        sizes = [len(level) for level in anchors_per_level]
        # the order within a level is stable, where topk would break ties as it likes
        best = [level.sort(dim=1, descending=True, stable=True) for level in logits.squeeze(2).split(sizes, dim=1)]
        firsts = [sum(sizes[:level]) for level in range(len(sizes))]
        index = torch.cat([found.indices[:, :most] + first for found, first in zip(best, firsts, strict=True)], dim=1)
        scores = torch.cat([found.values[:, :most] for found in best], dim=1)  # (B, n)
        counts = torch.tensor([min(size, most) for size in sizes], device=logits.device)
        levels = torch.arange(len(sizes), device=logits.device)
        levels = levels.repeat_interleave(counts, output_size=index.shape[1]).expand(num_images, -1)
        images = torch.arange(num_images, device=logits.device)[:, None].expand_as(levels)

        anchors = torch.cat(list(anchors_per_level))[index]
        deltas = box_deltas.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = self.coding.decode(deltas.flatten(0, 1), anchors.flatten(0, 1))
        boxes = clip_boxes(boxes, boxes.new_tensor(image_sizes)[images.flatten()])
        large = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(dim=1)
        boxes, scores, levels, images = (
            v[large] for v in (boxes, scores.flatten(), levels.flatten(), images.flatten())
        )
        keep, kept = best_of_images(boxes, scores, levels, images, num_images, self.nms_thresh, self.number)
        return pad_sequence(boxes[keep].split(kept), batch_first=True)
