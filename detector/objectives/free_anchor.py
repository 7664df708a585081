"""FreeAnchor (arXiv:1909.02466): the objective that matches nothing in advance, but lets anchors compete for objects.

B images, A anchors of one image, K classes, N objects of the batch, n anchors in the bag of each.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.assignment import CROWD_COVERAGE, Assignment, padded_targets
from detector.boxes import PAPER_CODING, Coding, intersection_over_area, pair_chunks, pairwise_iou
from detector.monitor import Monitor
from detector.objectives.matched import compare, watch
from losses.free_anchor import FreeAnchorLoss, background_sum
from losses.overlaps import box_area
from losses.precision import at_least_float32


class FreeAnchor(nn.Module):
    """Each object has a bag, the anchors that overlap it most, which compete to explain it.

    Every other detection is background, unless its box overlaps an object of its class well. Crowd regions are no
    objects, nor are boxes without area. Anchors that tie for the last place of a bag: the choice is `torch.topk`'s.

    Args:
        loss: the settings, and the parts that are made of bags and background.
        ignore_crowd: an anchor that a crowd region covers by half or more is no background in that region's class.
        coding: of the boxes.
    """

    def __init__(
        self, loss: FreeAnchorLoss | None = None, ignore_crowd: bool = False, coding: Coding = PAPER_CODING
    ) -> None:
        super().__init__()
        self.loss = FreeAnchorLoss() if loss is None else loss
        self.ignore_crowd = ignore_crowd
        self.coding = coding

    def forward(
        self,
        cls_logits: Tensor,
        box_deltas: Tensor,
        anchors_per_level: Sequence[Tensor] | Tensor,
        targets: Sequence[dict[str, Any]],
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, averaged over its objects, or over those of all processes in `group`.

        Args:
            cls_logits: (B, A, K) and box_deltas: (B, A, 4), any float dtype.
            anchors_per_level: list of (n, 4), together (A, 4), or these joined.
            targets: see `assign_targets`.
            monitor: takes the statistics of this process's batch, if given.
        Returns:
            Scalars "loss" (to differentiate) and its parts, float32 or float64, see `FreeAnchorLoss`.
        """
        levels = [anchors_per_level] if isinstance(anchors_per_level, Tensor) else list(anchors_per_level)
        anchors, (num_images, _, num_classes) = torch.cat(levels), cls_logits.shape
        logits = at_least_float32(cls_logits).flatten()
        cls_logits, box_deltas = logits.view(cls_logits.shape), at_least_float32(box_deltas)
        boxes, labels, crowd = padded_targets(targets)
        boxes = boxes.to(anchors.dtype)
        objects = _Objects.pick(boxes, labels, ~crowd & (box_area(boxes) > 0))
        regions = _Objects.pick(boxes, labels, crowd & self.ignore_crowd)

        bags = self._bags(anchors, objects.boxes)
        log_likelihoods = self._log_likelihoods(cls_logits, box_deltas, anchors, objects, bags)
        # What is as large as the predictions exists for one image at a time.
        background, explained = logits.new_zeros((), dtype=torch.float64), []
        parts = (cls_logits.unbind(), box_deltas.detach(), objects.by_image(num_images), regions.by_image(num_images))
        for own_logits, own_deltas, own_objects, own_regions in zip(*parts, strict=True):
            contained = self._contained(self.coding.decode(own_deltas, anchors), own_objects, num_classes)
            _contain_covered(contained, anchors, own_regions)
            background = background + background_sum(
                own_logits.flatten(), contained.flatten(), self.loss.settings.gamma
            )
            if monitor is not None:
                explained.append(contained)
        if monitor is not None:
            chosen = _chosen(anchors, objects, bags, log_likelihoods, torch.stack(explained))
            matched = compare(cls_logits, box_deltas, chosen, self.coding)
            # `logits` itself, as its gradient is what the monitor wants to hear of
            watch(monitor, replace(matched, logits=logits), self.loss.settings, group)
            if monitor.detailed:
                monitor.watch_levels(levels, chosen.reference_index)
                monitor.watch_fit(levels, targets)
        return self.loss.of_bags(log_likelihoods, background, group)

    @torch.no_grad()
    def _bags(self, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """(N, n) indices of the anchors with the highest IoU with each object, as many as there are at most."""
        size = min(self.loss.settings.bag_size, len(anchors))
        bags = torch.empty((len(gt_boxes), size), dtype=torch.int64, device=anchors.device)
        for _, rows in pair_chunks(gt_boxes[None], len(anchors)):
            bags[rows] = pairwise_iou(gt_boxes[rows], anchors).topk(size, sorted=False).indices
        return bags

    def _log_likelihoods(
        self, cls_logits: Tensor, box_deltas: Tensor, anchors: Tensor, objects: "_Objects", bags: Tensor
    ) -> Tensor:
        """(N, n) ln q of every member of a bag: that it scores the object's class, and that its box fits (Eq. 3)."""
        settings, images = self.loss.settings, objects.images[:, None]
        logits, deltas = cls_logits[images, bags, objects.labels[:, None]], box_deltas[images, bags]  # (N, n[, 4])
        gt_boxes = objects.boxes.repeat_interleave(bags.shape[1], dim=0)
        right = self.coding.encode(gt_boxes, anchors[bags.flatten()]).view_as(deltas).to(deltas.dtype)
        errors = F.smooth_l1_loss(deltas, right, beta=settings.smooth_l1_beta, reduction="none").sum(dim=2)
        return F.logsigmoid(logits) - settings.beta * errors

    @torch.no_grad()
    def _contained(self, pred_boxes: Tensor, objects: "_Objects", num_classes: int) -> Tensor:
        """How surely each entry of an image belongs to an object of its class (Eq. 6): (A, K) in [0, 1].

        It rises from 0 at an IoU of `min_iou` to 1 for the best of all predicted boxes (A, 4).
        """
        least = self.loss.settings.min_iou
        contained = pred_boxes.new_zeros(len(pred_boxes), num_classes)
        for _, rows in pair_chunks(objects.boxes[None], len(pred_boxes)):
            iou = pairwise_iou(objects.boxes[rows], pred_boxes)  # (g, A)
            index, boxes = (iou > least).nonzero().unbind(1)
            share = (iou[index, boxes] - least) / (iou.amax(dim=1)[index] - least)
            entries = boxes * num_classes + objects.labels[rows][index]
            contained.view(-1).scatter_reduce_(0, entries, share, "amax")
        return contained


class _Objects(NamedTuple):
    """Boxes of a batch: images (N,) int64, ascending; boxes (N, 4); labels (N,)."""

    images: Tensor
    boxes: Tensor
    labels: Tensor

    @classmethod
    def pick(cls, boxes: Tensor, labels: Tensor, wanted: Tensor) -> "_Objects":
        """Those of padded boxes (B, n, 4) and labels (B, n) that are wanted (B, n)."""
        images, places = wanted.nonzero().unbind(1)
        return cls(images, boxes[images, places], labels[images, places])

    def by_image(self, num_images: int) -> list["_Objects"]:
        """Those of each image."""
        counts = self.images.bincount(minlength=num_images).tolist()
        return [_Objects(*parts) for parts in zip(*(values.split(counts) for values in self), strict=True)]


def _contain_covered(contained: Tensor, anchors: Tensor, regions: _Objects) -> None:
    """Makes entries (A, K) certain whose anchor a crowd region of their class covers: so they are no background."""
    for _, rows in pair_chunks(regions.boxes[None], len(anchors)):
        covered = intersection_over_area(anchors, regions.boxes[rows]) >= CROWD_COVERAGE  # (A, r)
        boxes, index = covered.nonzero().unbind(1)
        contained[boxes, regions.labels[rows][index]] = 1


@torch.no_grad()
def _chosen(anchors: Tensor, objects: _Objects, bags: Tensor, log_likelihoods: Tensor, contained: Tensor) -> Assignment:
    """What stands in for an assignment where statistics are asked for, as nothing is matched.

    Of each bag the anchor that explains its object best counts as its positive; other entries that belong to objects
    count as ignored, all others as negative.

    Args:
        contained: (B, A, K).
    """
    _, num_anchors, num_classes = contained.shape
    best = bags.gather(1, log_likelihoods.argmax(dim=1, keepdim=True)).squeeze(1)
    entries, order = ((objects.images * num_anchors + best) * num_classes + objects.labels).sort(stable=True)
    first = entries.diff(prepend=entries.new_tensor([-1])) > 0  # two objects may have chosen the same
    entries, order = entries[first], order[first]
    cls_targets = -(contained > 0).to(torch.int8)
    cls_targets.view(-1).index_fill_(0, entries, 1)
    boxes = anchors[best[order]]
    return Assignment(cls_targets, objects.images[order], best[order], entries, boxes, objects.boxes[order])
