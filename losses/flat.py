"""Logits and targets as people have them, of any leading shape, as the flat vectors that are ranked."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .entries import positive_entries, require_float
from .matched import OVERLAPS
from .precision import at_least_float32


@dataclass(frozen=True)
class Flat:
    """Logits (…, K) as one vector of M logits, P of them positive.

    Attributes:
        logits: (M,) any float dtype.
        targets: (M,) 1 positive, 0 negative, -1 ignored.
        entries: (P,) int64, indices of the targets that are 1, ascending.
        leading: …, the shape of the positions.
        several: whether a position may have several positives, as with one-hot targets of several classes.
    """

    logits: Tensor
    targets: Tensor
    entries: Tensor
    leading: torch.Size
    several: bool

    def of_positives(self, values: Tensor, name: str, of_each: tuple[int, ...] = ()) -> Tensor:
        """(P, *of_each) from that, in the order of the positives, or from (…, *of_each), values of every position.

        Raises:
            ValueError: another shape, or both are one shape and would pair the values with other positives: as many
                positives as positions, but not one in each. Only where there are as many, it waits for a GPU.
        """
        count = len(self.entries)
        if values.shape == (*self.leading, *of_each):
            num_classes = len(self.logits) // max(1, self.leading.numel())
            positions = self.entries // max(1, num_classes)
            # a position that has one positive at most leaves no choice: all of them are positive, in order
            may_differ = self.several and self.leading == (count,)
            if may_differ and not torch.equal(positions, torch.arange(count, device=positions.device)):
                shape = tuple(values.shape)
                raise ValueError(
                    f"{name} {shape} may be of the {count} positives or of the {count} positions, some of which have "
                    f"several positives; with logits[None] and targets[None] {shape} is of the positives, and "
                    f"{(1, *shape)} of the positions"
                )
            return values.reshape(-1, *of_each)[positions]
        if values.shape != (count, *of_each):
            ours = f"{(count, *of_each)} of the positives or {(*self.leading, *of_each)} of all positions"
            raise ValueError(f"{name} must have shape {ours}, got {tuple(values.shape)}")
        return values

    def boxes(self, pred_boxes: Tensor | None, gt_boxes: Tensor | None) -> tuple[Tensor, Tensor]:
        """(P, 4) twice, float32 or float64: half the digits would move an edge by pixels."""
        if pred_boxes is None or gt_boxes is None:
            raise ValueError("the localisation part needs pred_boxes and gt_boxes")
        pred, gt = self.of_positives(pred_boxes, "pred_boxes", (4,)), self.of_positives(gt_boxes, "gt_boxes", (4,))
        return at_least_float32(pred), at_least_float32(gt)

    def overlaps(self, kind: str, pred_boxes: Tensor | None, gt_boxes: Tensor | None) -> Tensor:
        """(P,) IoU, DIoU or GIoU of predicted box and object; gradients reach the predictions."""
        return OVERLAPS[kind](*self.boxes(pred_boxes, gt_boxes))


def refuse_both(pred_boxes: Tensor | None, gt_boxes: Tensor | None, values: Tensor | None, name: str) -> None:
    """Raises ValueError for boxes beside the values that stand for them: these boxes would learn nothing."""
    if values is not None and not (pred_boxes is None and gt_boxes is None):
        raise ValueError(f"give boxes or {name}, not both")


def flatten(logits: Tensor, targets: Tensor) -> Flat:
    """Logits (…, K) with their targets, or (M,) of one class, which waits for a GPU to find the positives.

    Args:
        logits: any float dtype.
        targets: labels (…), integers, 0 to K - 1 a class, from K on background, negative to ignore all K of them; or
            of the logits' shape, any dtype, 1 positive, 0 negative, -1 ignored.
    Raises:
        ValueError: shapes do not fit, logits are no floats, or labels no integers.
    """
    require_float(logits)
    leading = logits.shape if logits.dim() == 1 else logits.shape[:-1]
    several = targets.shape == logits.shape and logits.numel() > leading.numel()
    if targets.shape != logits.shape:
        targets = _one_hot(targets, logits)
    flat = targets.flatten()
    return Flat(logits.flatten(), flat, positive_entries(flat), leading, several)


def _one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """(…, K) int8 from labels (…)."""
    if labels.shape != logits.shape[:-1]:
        shapes = f"{tuple(labels.shape)} for logits {tuple(logits.shape)}"
        raise ValueError(f"targets must be labels, one for each position, or of the logits' shape; got {shapes}")
    if labels.dtype == torch.bool or labels.dtype.is_floating_point:
        raise ValueError(f"labels must be integers, 0 the first class and K background; got {labels.dtype}")
    labels = labels.to(torch.int64)  # unsigned types compare with few others
    classes = torch.arange(logits.shape[-1], device=labels.device)
    return (labels[..., None] == classes).to(torch.int8) - (labels < 0)[..., None].to(torch.int8)
