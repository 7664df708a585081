"""Rank & Sort Loss (Oksuz et al., arXiv 2107.11669), the successor of aLRP Loss.

It ranks the positives above the negatives, and sorts them among themselves by the IoU of their boxes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .box_loss import weighted_mean
from .compiling import breaks_graph
from .flat import Flat, refuse_both
from .loss import RANKED_HEADS, LossSettings, equal_parts, require_positive, weighted_sum
from .matched import OVERLAPS, Matched
from .module import RankingLoss
from .overlaps import paired_iou
from .precision import at_least_float32
from .ranking.ranking import Ranking
from .ranking.smaller_keys import sum_over_smaller_keys

# Positives in the wrong order that weigh less than this drive no sorting gradient (released code).
MIN_MISSORTED = 1e-10


@breaks_graph
def rs_loss(
    logits: Tensor,
    targets: Tensor,
    ious: Tensor,
    delta: float = 0.5,
    group: dist.ProcessGroup | None = None,
    entries: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Ranking and sorting part of Rank & Sort Loss, to be added.

    Both drive the logits alone, by the identity update: the ranking part lifts positives and pushes the negatives
    above them down, the sorting part lifts positives and pushes down those above them that have a smaller IoU. In
    each, the gradients sum to zero. ious are labels here: no gradient reaches them.

    Args:
        logits: (M,) any float dtype, before the sigmoid, of every anchor and class of the batch.
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 or another value ignored.
        ious: (P,) in 0..1, IoU of the positives' predicted boxes with their objects, in the order of
            logits[targets == 1].
        delta: half-width of the smoothed step between two logits, > 0.
        group: process group to rank over; None ranks within this process. As in `alrp_loss`.
        entries: (P,) int64, as in `alrp_loss`.
    Returns:
        two scalars, ranking in [0, 1) and sorting in [0, 1], float64 for float64 logits and float32 for others. Both
        are 0 with zero gradients if there is no positive, and NaN if any logit is not finite.
    Raises:
        ValueError: delta is not a positive number below 1e300, or shapes do not fit.

    Example:
        The second positive lies below a negative, and below a positive whose box is worse: both are pushed down.

        >>> logits = torch.tensor([3.0, 0.0, 2.0, -4.0], requires_grad=True)
        >>> ranking, sorting = rs_loss(logits, torch.tensor([1, 1, 0, -1]), torch.tensor([0.5, 0.9]))
        >>> round(ranking.item(), 4), round(sorting.item(), 4)
        (0.2, 0.1333)
        >>> (ranking + sorting).backward()
        >>> [round(g, 4) for g in logits.grad.tolist()]
        [0.1333, -0.3333, 0.2, 0.0]
    """
    ranking = Ranking(logits, targets, delta, group, ious, entries)
    if ranking.on_kernels:
        from .rank_sort_triton import MAX_PAIRED, Sorting, rank_sort_parts

        if ranking.num_positives <= MAX_PAIRED:
            parts = rank_sort_parts(ranking, delta, MIN_MISSORTED)
            sorting_loss = Sorting.apply(logits, (parts.sorting,), parts.sorting_errors, ranking)
            return ranking.attach(logits, targets, parts.ranking, parts.ranking_errors), sorting_loss
    # Eq. 4: rank+ counts i itself as H(0) = 1/2.
    positive_rank = ranking.positive_rank - 0.5
    ranking_errors = ranking.false_positives / (positive_rank + ranking.false_positives)
    ranking_loss = ranking.loss(logits, targets, ranking_errors, ranking_errors)

    # Eq. 4 and 5. The sorting error of i is the mean of 1 - IoU over the positives from i up; its target is the mean
    # over those of them that belong there, whose IoU is not smaller. Missorted are the others.
    badness = 1 - ranking.weights
    above = ranking.positive_rank - 1 - ranking.weight_above + badness / 2
    weights = torch.stack([torch.ones_like(badness), badness])
    missorted, missorted_badness = sum_over_smaller_keys(ranking.positions, ranking.weights, weights, delta)
    sorting_errors = above / positive_rank - (above - missorted_badness) / (positive_rank - missorted)

    # Eq. 9: i is lifted by its error, which pushes the missorted positives k down in the proportions H(x_ik).
    lift = torch.where(missorted > MIN_MISSORTED, sorting_errors, 0)
    share = torch.where(missorted > MIN_MISSORTED, lift / missorted, 0)
    push = sum_over_smaller_keys(-ranking.positions, -ranking.weights, share[None], delta)[0]
    gradient = ((push - lift) / max(1, ranking.num_positives))[ranking.own]
    own = gradient * logits[ranking.own_entries].double()
    attached = (own - own.detach()).sum()
    sorting_loss = sorting_errors.sum() / max(1, ranking.num_positives) + attached + ranking.not_finite
    return ranking_loss, sorting_loss.to(ranking_loss.dtype)


@dataclass(frozen=True, kw_only=True)
class RankSortSettings(LossSettings):
    """Settings of Rank & Sort Loss; the defaults are its paper's."""

    label: ClassVar[str] = "Rank & Sort"
    hyper_parameters: ClassVar[tuple[str, ...]] = ("delta",)
    ranks: ClassVar[bool] = True
    update_ratios: ClassVar[tuple[float, float]] = (1e-3, 2.5e-3)
    # Scores that learn the quality of boxes need no second opinion on it (Rank & Sort Loss, arXiv 2107.11669).
    model_defaults: ClassVar[Mapping[str, Any]] = {"centerness": None, **RANKED_HEADS}

    name: Literal["rs"] = "rs"
    loc_error: Literal["iou", "diou", "giou"] = "giou"
    """Overlap that the box loss is made of."""
    delta: float = 0.5
    """Half-width of the smoothed step between two logits, > 0."""
    self_balance: bool = True
    """Weigh the localisation part in every step such that both parts are alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "delta")

    @property
    def step_half_width(self) -> float:
        return self.delta


class RankSortLoss(RankingLoss):
    """Rank & Sort Loss of a head, and the box loss of its positives, weighted by their scores.

    Arguments as of `RankingLoss`.
    """

    Settings = RankSortSettings
    settings: RankSortSettings

    @torch.compiler.disable
    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        pred_boxes: Tensor | None = None,
        gt_boxes: Tensor | None = None,
        *,
        ious: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Classification (ranking and sorting) and weighted localisation part, to be added.

        Args:
            logits, targets, pred_boxes, gt_boxes: as of `ALRPLoss`.
            ious: in place of boxes, (P,) or (…) in 0..1: labels of the sorting part, and what the localisation part
                makes grow if they have a gradient.
        Returns, Raises:
            as of `ALRPLoss`.
        """
        flat, group = self._flat(logits, targets)
        refuse_both(pred_boxes, gt_boxes, ious, "ious")
        if ious is None:
            pred, gt = flat.boxes(pred_boxes, gt_boxes)
            ious, overlaps = paired_iou(pred.detach(), gt), OVERLAPS[self.settings.loc_error](pred, gt)
        else:
            ious = overlaps = at_least_float32(flat.of_positives(ious, "ious"))
        return self._result(*self._parts(flat, ious, overlaps, group), group)

    def of_matched(self, matched: Matched, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        ious = paired_iou(matched.pred_boxes.detach(), matched.gt_boxes)
        return weighted_sum(*self._parts(matched, ious, matched.overlaps(self.settings.loc_error), group))

    def _parts(
        self, ranked: Flat | Matched, ious: Tensor, overlaps: Tensor, group: dist.ProcessGroup | None
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Both parts, unweighted, and the weight of the second."""
        delta = self.settings.delta
        ranking, sorting = rs_loss(ranked.logits, ranked.targets, ious, delta, group, ranked.entries)
        loss_cls = ranking + sorting
        # boxes count by the scores that they will have
        scores = ranked.logits.detach()[ranked.entries].to(loss_cls.dtype).sigmoid()
        loss_loc = weighted_mean(1 - overlaps, scores, group)
        return loss_cls, loss_loc, equal_parts(loss_cls, loss_loc) if self.settings.self_balance else 1.0
