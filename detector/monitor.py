"""Statistics of a batch in training: of what the losses rank, and of the gradient that comes of it.

B images, A reference boxes of one image, K classes, P positives, M = B·A·K logits, of this process.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from detector.boxes import MAX_PAIRS, pairwise_iou
from losses.overlaps import paired_iou
from losses.precision import at_least_float32
from losses.ranking.ranking import Ranking

GRADIENT_MASS = "grad_mass_"  # prefix of the statistics that belong to the scaled loss; all others are counts and sums
REACHED_IOU = 0.4  # of an object with its best reference box, which then fits; matchers force the others
LOGIT_EDGES = torch.linspace(-16, 16, 129)  # bins of a quarter
RANK_EDGES = torch.logspace(0, 8, 65)  # eight bins per power of ten
IOU_EDGES = torch.linspace(0, 1, 21)
PIECE = 1 << 24  # entries at a time: float32 copies of all would be more memory than the training takes


class Monitor:
    """Collects the statistics of one forward and backward pass; reads values and changes none.

    Args:
        detailed: collect what a diagnosis needs too.

    Attributes:
        values: name -> detached tensor. Gradient masses are of the scaled loss; everything else is a count or a sum
            over this process's batch, so that it adds up over micro-batches and processes:
            "num_positives"; "num_relevant_negatives", which can rank above some positive; once the loss has been
            differentiated "grad_mass_positive" and "grad_mass_negative", Σ|d loss / d logit| over either.
            Detailed, also "num_negatives"; where boxes are offsets of reference boxes, "num_objects",
            "num_objects_reached", whose best one has at least REACHED_IOU, and "sum_reference_iou" of the best;
            "positives_per_level" (levels,); over the
            positives "sum_iou" of predicted box and object and "sum_precision", rank among the positives / rank;
            and histograms by the edges above: "hist_logit_positive", "hist_logit_negative", "hist_rank", "hist_iou".
    """

    def __init__(self, detailed: bool = False) -> None:
        self.detailed = detailed
        self.values: dict[str, Tensor] = {}

    def watch_logits(self, logits: Tensor, cls_targets: Tensor, delta: float | None) -> None:
        """Counts entries, and their gradients when they come.

        Args:
            logits, cls_targets: (M,), as the losses take them.
            delta: of a ranking loss, for which a negative is relevant from the lowest positive - delta on; None for
                a loss to which all are.
        """
        positive, negative = cls_targets == 1, cls_targets == 0
        self.values["num_positives"] = positive.sum()
        if delta is None:
            self.values["num_relevant_negatives"] = negative.sum()
        else:
            # a head without entries, as where no region was proposed, still has one piece: an empty one
            pieces = [(seen, kept) for seen, kept in _pieces(logits.detach(), positive) if len(seen)]
            lows = [seen.masked_fill(~kept, torch.inf).amin() for seen, kept in pieces]
            lowest = torch.stack(lows).amin() if lows else torch.inf
            relevant = [(kept & (seen > lowest - delta)).sum() for seen, kept in _pieces(logits.detach(), negative)]
            self.values["num_relevant_negatives"] = torch.stack(relevant).sum()

        def add_grad_mass(grad: Tensor) -> None:
            for name, entries in (("positive", positive), ("negative", negative)):
                masses = [(mass.abs() * kept).sum() for mass, kept in _pieces(grad.detach(), entries)]
                self.values[f"{GRADIENT_MASS}{name}"] = torch.stack(masses).sum()

        if logits.requires_grad:
            logits.register_hook(add_grad_mass)

    @torch.no_grad()
    def watch_ranks(
        self, logits: Tensor, cls_targets: Tensor, entries: Tensor, delta: float, group: ProcessGroup | None
    ) -> None:
        """Measures how the positives of this process score and rank among all processes of `group`, which all call it.

        Args:
            logits, cls_targets: (M,). entries: (P,) indices of the targets that are 1, ascending.
        """
        ranking = Ranking(logits, cls_targets, delta, group, entries=entries)
        rank, positive_rank = ranking.rank[ranking.own], ranking.positive_rank[ranking.own]
        self.values["num_negatives"] = (cls_targets == 0).sum()
        self.values["sum_precision"] = (positive_rank / rank).sum()
        self.values["hist_rank"] = _histogram(rank, RANK_EDGES)
        self.values["hist_logit_positive"] = _histogram(at_least_float32(logits[entries]), LOGIT_EDGES)
        negatives = (_histogram(seen[kept], LOGIT_EDGES) for seen, kept in _pieces(logits, cls_targets == 0))
        self.values["hist_logit_negative"] = torch.stack(list(negatives)).sum(dim=0)

    @torch.no_grad()
    def watch_levels(self, references_per_level: Sequence[Tensor], reference_index: Tensor) -> None:
        """Counts the positives of each level.

        Args:
            references_per_level: list of (n, 4), together (A, 4).
            reference_index: (P,) indices into A of the positive ones.
        """
        ends = torch.tensor([len(level) for level in references_per_level], device=reference_index.device).cumsum(0)
        level = torch.bucketize(reference_index, ends, right=True)
        self.values["positives_per_level"] = level.bincount(minlength=len(references_per_level))

    @torch.no_grad()
    def watch_fit(self, references_per_level: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> None:
        """Measures how reference boxes fit the objects, where predictions are offsets of them.

        Args:
            references_per_level: list of (n, 4), together (A, 4). targets: as `assign_targets` takes them.
        """
        references = torch.cat(list(references_per_level))
        best = torch.cat([best_reference_ious(references, target["boxes"][~target["crowd"]]) for target in targets])
        self.values["num_objects"] = best.new_tensor(len(best))
        self.values["num_objects_reached"] = (best >= REACHED_IOU).sum()
        self.values["sum_reference_iou"] = best.sum()

    @torch.no_grad()
    def watch_boxes(self, pred_boxes: Tensor, gt_boxes: Tensor) -> None:
        """Measures how the predicted boxes (P, 4) fit the objects (P, 4) that they are matched to."""
        ious = paired_iou(pred_boxes, gt_boxes)
        self.values["sum_iou"] = ious.sum()
        self.values["hist_iou"] = _histogram(ious, IOU_EDGES)


def best_reference_ious(references: Tensor, gt_boxes: Tensor) -> Tensor:
    """IoU of each object with the reference box that fits it best: (A, 4), (G, 4) to (G,)."""
    chunks = gt_boxes.to(references.dtype).split(max(1, MAX_PAIRS // max(1, len(references))))
    return torch.cat([pairwise_iou(chunk, references).amax(dim=1) for chunk in chunks])


def _pieces(values: Tensor, kept: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both (M,), `PIECE` entries at a time; the values as float32, or float64 if they are."""
    for piece, its_kept in zip(values.split(PIECE), kept.split(PIECE), strict=True):
        yield at_least_float32(piece), its_kept


def _histogram(values: Tensor, edges: Tensor) -> Tensor:
    """Counts (len(edges) - 1,) of the bins; what lies outside goes to the nearest, what is not finite nowhere."""
    values = values[values.isfinite()]
    bins = torch.bucketize(values, edges[1:-1].to(values), right=True)
    return bins.bincount(minlength=len(edges) - 1)
