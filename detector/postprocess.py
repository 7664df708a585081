"""Network outputs to detections."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detector.boxes import PAPER_CODING, Coding, clip_boxes
from detector.nms import best_of_images, rank_in_group
from detector.on_gpu import kernel_detections, usable


class PostProcessor:
    """Best candidates of each level, decoded, clipped, and thinned out by NMS per class.

    Args:
        score_thresh: a detection scores more than this.
        topk_candidates: entries that each level sends to NMS at most.
        nms_thresh: IoU above which the worse of two detections of one class goes.
        detections_per_img: how many remain at most.
        coding: of the boxes.
    """

    def __init__(
        self,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = 0.5,
        detections_per_img: int = 100,
        coding: Coding = PAPER_CODING,
    ) -> None:
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.coding = coding

    @torch.no_grad()
    def __call__(
        self,
        cls_logits: Tensor,
        box_deltas: Tensor,
        references_per_level: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Detections of each image; one pass over the batch, however many images it has.

        Args:
            cls_logits: (B, A, K) and box_deltas: (B, A, 4), float32.
            references_per_level: list of (n, 4), together (A, 4).
            image_sizes: (h, w) to which the boxes of each image are clipped.
        Returns:
            Per image "boxes" (n, 4) xyxy, "scores" (n,), "labels" (n,) int64, best first; among equal
            scores, lower levels, rows, columns, anchors and classes first.
        """
        return self.of_scores(cls_logits.sigmoid(), box_deltas, references_per_level, image_sizes)

    @torch.no_grad()
    def of_scores(
        self,
        scores: Tensor,
        box_deltas: Tensor,
        references_per_level: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        score_thresh: float | None = None,
    ) -> list[dict[str, Tensor]]:
        """The same of scores (B, A, K) that are made otherwise, with another threshold if given."""
        num_images, _, num_classes = scores.shape
        score_thresh = self.score_thresh if score_thresh is None else score_thresh
        if usable(scores, self.topk_candidates * len(references_per_level)):
            return kernel_detections(self, scores, box_deltas, references_per_level, image_sizes, score_thresh)
        sizes, first, selected = [len(level) for level in references_per_level], 0, []
        for level_scores in scores.split(sizes, dim=1):
            images, entries = self._select(level_scores.flatten(1), score_thresh)
            selected.append((images, entries + first * num_classes))
            first += level_scores.shape[1]
        images, entries = (torch.cat(parts) for parts in zip(*selected, strict=True))

        scores = scores.flatten(1)[images, entries]
        reference_index = entries.div(num_classes, rounding_mode="floor")
        references = torch.cat(list(references_per_level))[reference_index]
        boxes = self.coding.decode(box_deltas[images, reference_index], references)
        boxes = clip_boxes(boxes, boxes.new_tensor(image_sizes)[images])
        labels = entries % num_classes
        limits = self.nms_thresh, self.detections_per_img
        keep, counts = best_of_images(boxes, scores, labels, images, num_images, *limits)
        parts = (values[keep].split(counts) for values in (boxes, scores, labels))
        return [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(*parts, strict=True)]

    def _select(self, scores: Tensor, score_thresh: float) -> tuple[Tensor, Tensor]:
        """The best entries above the threshold of each row of (B, n).

        Returns:
            (N,) their rows and (N,) their columns, row by row, in each best first, lower column first among equals.
        """
        num_rows, width = scores.shape
        candidates = (scores > score_thresh).flatten().nonzero().squeeze(1)
        starts = torch.searchsorted(candidates, torch.arange(num_rows + 1, device=scores.device) * width)
        counts = starts.diff().tolist()
        if max(counts) > self.topk_candidates:
            # topk breaks ties as it likes: take its lowest score only, and let the stable sort choose
            padded = pad_sequence(scores.flatten()[candidates].split(counts), batch_first=True, padding_value=-1.0)
            lowest = padded.topk(self.topk_candidates).values[:, -1:].clamp(min=0)
            rows, ranks = (padded >= lowest).nonzero(as_tuple=True)
            candidates = candidates[starts[rows] + ranks]
        best_first = scores.flatten()[candidates].argsort(descending=True, stable=True)
        rows = candidates[best_first].div(width, rounding_mode="floor")
        best_first = best_first[rows.argsort(stable=True)]
        rows, columns = rows.sort().values, candidates[best_first] % width
        among_best = rank_in_group(rows, num_rows) < self.topk_candidates
        return rows[among_best], columns[among_best]
