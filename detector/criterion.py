"""Ground truth to loss: what each anchor has to predict, and how far the predictions are from it.

B images, A anchors of one image, K classes, P positives of the batch.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.utils.rnn import pad_sequence

from detector.boxes import (
    PAPER_CODING,
    BoxCoding,
    decode_boxes,
    encode_boxes,
    intersection_over_area,
)
from detector.matcher import IGNORED, NEGATIVE
from detector.monitor import Monitor
from losses import SelfBalance, alrp_loss, ap_loss, focal_loss, rs_loss, smooth_l1_loss
from losses.group_sums import ratio_over_group
from losses.overlaps import paired_diou, paired_giou, paired_iou

Matcher = Callable[[Sequence[Tensor], Tensor], Tensor]

TAU = 0.5  # IoU from which a detection is a true positive in the LRP error
CROWD_COVERAGE = 0.5  # share of an anchor inside a crowd region from which it is ignored there


class Assignment(NamedTuple):
    """What the anchors of a batch have to predict.

    cls_targets: (B, A, K) int8, 1 positive, 0 negative, -1 ignored.
    positives: (P,) int64 indices of the positive anchors into B·A, ascending.
    entries: (P,) int64 indices into B·A·K of their positive entries, in the same order: an anchor is positive in
        one class.
    gt_boxes: (P, 4), the box that each of them has to predict.
    """

    cls_targets: Tensor
    positives: Tensor
    entries: Tensor
    gt_boxes: Tensor


@torch.no_grad()
def assign_targets(
    matcher: Matcher,
    anchors_per_level: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    num_classes: int,
    ignore_crowd: bool,
) -> Assignment:
    """Match every image's anchors to its objects, all images at once.

    Crowd regions are no objects: an anchor on one is negative like any other, or, with ignore_crowd, a
    negative anchor at least half covered by a crowd region is ignored in that region's class only.

    Args:
        targets: per image "boxes" (n, 4), "labels" (n,) in 0..K-1, "crowd" (n,) bool.
    """
    anchors = torch.cat(list(anchors_per_level))
    # (B, n, 4) and (B, n), n of the image that has most, padded with zeros
    boxes, labels, crowd = (pad_sequence([t[key] for t in targets], True) for key in ("boxes", "labels", "crowd"))
    boxes = boxes.to(anchors.dtype)
    matches = matcher(anchors_per_level, boxes.masked_fill(crowd[..., None], 0))  # (B, A); zeros match nothing
    cls_targets = -(matches == IGNORED).to(torch.int8)
    cls_targets = cls_targets[..., None].repeat(1, 1, num_classes)
    if ignore_crowd:
        regions = boxes.masked_fill(~crowd[..., None], 0)
        covered = intersection_over_area(anchors, regions) >= CROWD_COVERAGE  # (B, A, n)
        ignored = -(covered & (matches == NEGATIVE)[..., None]).to(torch.int8)
        cls_targets.scatter_reduce_(2, labels[:, None].expand(ignored.shape), ignored, "amin")

    matches = matches.flatten()
    positives = (matches >= 0).nonzero().squeeze(1)  # the one place of a loss that waits for a GPU
    objects = positives // len(anchors) * labels.shape[1] + matches[positives]  # indices into B·n
    entries = positives * num_classes + labels.flatten()[objects]
    cls_targets.view(-1).index_fill_(0, entries, 1)
    return Assignment(cls_targets, positives, entries, boxes.flatten(0, 1)[objects])


SIMILARITIES = {"iou": paired_iou, "diou": paired_diou, "giou": paired_giou}


def localisation_errors(pred_boxes: Tensor, gt_boxes: Tensor, loc_error: str) -> Tensor:
    """E of aLRP Loss for each positive: (P, 4) twice to (P,), 0 for a perfect box.

    (1 - IoU) / (1 - τ), and for GIoU and DIoU, which reach down to -1, (1 - GIoU)/2 / (1 - τ). May exceed 1.
    """
    errors = (1 - SIMILARITIES[loc_error](pred_boxes, gt_boxes)) / (1 - TAU)
    return errors if loc_error == "iou" else errors / 2


class Criterion(nn.Module):
    """aLRP Loss, Rank & Sort Loss or a baseline, of a batch.

    Args:
        matcher: `MaxIoUMatcher` or `ATSSMatcher`.
        name: "alrp", "rs", "ap" or "focal".
        loc_error: "iou", "diou" or "giou", what alrp and rs measure localisation with.
        box_loss: one of these, or "smooth_l1" on the offsets: the localisation part of ap and focal.
        box_weights: "rank" weighs the boxes of alrp by the positives that rank below, as published; "equal" takes the
            mean over all, like ap and focal.
        delta: half-width of the smoothed step of the ranking losses. alpha, gamma: of focal loss.
        self_balance: weigh the localisation part, alrp's by `self.self_balance.weight`, which is only read here; rs's,
            and alrp's with equal box_weights, such that both parts are equal in every step.
        ignore_crowd: see `assign_targets`.
        coding: of the boxes.
    """

    def __init__(
        self,
        matcher: Matcher,
        name: str = "alrp",
        loc_error: str = "giou",
        box_loss: str = "smooth_l1",
        box_weights: str = "rank",
        delta: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        self_balance: bool = True,
        ignore_crowd: bool = False,
        coding: BoxCoding = PAPER_CODING,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.name = name
        self.loc_error = loc_error
        self.box_loss = box_loss
        self.box_weights = box_weights
        self.delta = delta
        self.alpha = alpha
        self.gamma = gamma
        self.equal_parts = self_balance and (name == "rs" or (name == "alrp" and box_weights == "equal"))
        self.self_balance = SelfBalance() if self_balance and name == "alrp" and box_weights == "rank" else None
        self.ignore_crowd = ignore_crowd
        self.coding = coding

    def forward(
        self,
        cls_logits: Tensor,
        box_deltas: Tensor,
        anchors_per_level: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, ranked over it, or over the batches of all processes in `group`.

        Args:
            cls_logits: (B, A, K) and box_deltas: (B, A, 4), float32.
            monitor: filled with statistics of this process's batch if given.
        Returns:
            Scalars "loss" (to differentiate), "loss_cls" and "loss_loc" (its parts, unweighted). Without any
            positive they are zero (focal's classification part aside) and still attached to the graph.
        """
        assignment = assign_targets(self.matcher, anchors_per_level, targets, cls_logits.shape[-1], self.ignore_crowd)
        logits, cls_targets, entries = cls_logits.flatten(), assignment.cls_targets.flatten(), assignment.entries
        if monitor is not None:
            monitor.watch_logits(logits, cls_targets, None if self.name == "focal" else self.delta)

        pred_deltas = box_deltas.flatten(0, 1)[assignment.positives]  # (P, 4)
        anchors = torch.cat(list(anchors_per_level))
        anchors = anchors[assignment.positives % len(anchors)]
        pred_boxes, gt_boxes = decode_boxes(pred_deltas, anchors, self.coding), assignment.gt_boxes
        if monitor is not None and monitor.detailed:
            monitor.watch_ranks(logits, cls_targets, entries, self.delta, group)
            monitor.watch_boxes(anchors_per_level, targets, assignment.positives, pred_boxes, gt_boxes)
        if self.name == "alrp":
            loc_errors = localisation_errors(pred_boxes, gt_boxes, self.loc_error)
            loss_cls, loss_loc = alrp_loss(logits, cls_targets, loc_errors, self.delta, group, entries)
            if self.box_weights == "equal":
                loss_loc = ratio_over_group(loc_errors.sum(), torch.ones_like(loc_errors).sum(), group)
        elif self.name == "rs":
            ious = paired_iou(pred_boxes.detach(), gt_boxes)
            loss_cls = sum(rs_loss(logits, cls_targets, ious, self.delta, group, entries))
            scores = logits.detach()[entries].sigmoid()  # boxes count by the scores that they will have
            loss_loc = _box_loss(pred_boxes, gt_boxes, self.loc_error, scores, group)
        else:
            if self.name == "ap":
                loss_cls = ap_loss(logits, cls_targets, self.delta, group, entries)
            else:
                loss_cls = focal_loss(logits, cls_targets, self.alpha, self.gamma, group)
            if self.box_loss == "smooth_l1":
                loss_loc = smooth_l1_loss(pred_deltas, encode_boxes(gt_boxes, anchors, self.coding), group=group)
            else:
                loss_loc = _box_loss(pred_boxes, gt_boxes, self.box_loss, torch.ones_like(pred_boxes[:, 0]), group)
        loc_weight = self._loc_weight(loss_cls.detach(), loss_loc.detach())
        loss = loss_cls + (loc_weight * loss_loc).to(loss_cls.dtype)
        return {"loss": loss, "loss_cls": loss_cls, "loss_loc": loss_loc}

    def _loc_weight(self, loss_cls: Tensor, loss_loc: Tensor) -> Tensor | float:
        if self.self_balance is not None:
            return self.self_balance.weight
        if self.equal_parts:
            return torch.where(loss_loc > 0, loss_cls / loss_loc, 1.0)
        return 1.0


def _box_loss(
    pred_boxes: Tensor, gt_boxes: Tensor, similarity: str, weights: Tensor, group: ProcessGroup | None
) -> Tensor:
    """Weighted mean over the positives of 1 - IoU, DIoU or GIoU, 0 if there is none; weights (P,)."""
    errors = 1 - SIMILARITIES[similarity](pred_boxes, gt_boxes)
    return ratio_over_group((weights * errors).sum(), weights.sum(), group, at_least=1e-10)
