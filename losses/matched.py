"""The matches of a head in a batch: the input of every loss that compares predictions with their targets."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .overlaps import paired_diou, paired_giou, paired_iou

OVERLAPS = {"iou": paired_iou, "diou": paired_diou, "giou": paired_giou}


@dataclass(frozen=True)
class Matched:
    """Predictions of a batch beside their targets; M logits, P positives. What few losses need is made when asked for.

    Attributes:
        logits: (M,) as `as_losses_read` leaves them, before the sigmoid, of every anchor and class.
        targets: (M,) int8, 1 positive, 0 negative, -1 ignored.
        entries: (P,) int64, indices of the targets that are 1, ascending.
        pred_boxes, gt_boxes: (P, 4) xyxy pixels, predicted and to be predicted by the positives, in their order.
        pred_deltas: (P, 4) the same predictions as offsets, as the head gives them.
        encode_targets: gives the (P, 4) offsets that would be right.
        num_classes: K, how many entries that follow each other are of one box.
        tau: IoU from which the head takes a box for that of its object; τ of the LRP error.
        box_weights: (P,) >= 0, how much the positives count in losses that treat boxes apart from scores; None: alike.
    """

    logits: Tensor
    targets: Tensor
    entries: Tensor
    pred_boxes: Tensor
    gt_boxes: Tensor
    pred_deltas: Tensor
    encode_targets: Callable[[], Tensor]
    num_classes: int = 1
    tau: float = 0.5
    box_weights: Tensor | None = None

    def overlaps(self, kind: str) -> Tensor:
        """(P,) IoU, DIoU or GIoU of predicted box and object; gradients reach the predictions."""
        return OVERLAPS[kind](self.pred_boxes, self.gt_boxes)
