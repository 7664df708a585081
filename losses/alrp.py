"""Average Localisation-Recall-Precision Loss (arXiv 2009.13592).

Where paper and released code differ, this follows the released code, which made the published numbers. The places are
marked below.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .balance import SelfBalance
from .compiling import breaks_graph
from .flat import Flat, refuse_both
from .group_sums import ratio_over_group
from .loss import RANKED_HEADS, LossSettings, equal_parts, require_positive, weighted_sum
from .matched import Matched
from .module import Group, RankingLoss
from .precision import at_least_float32
from .ranking import Ranking

TAU = 0.5  # IoU from which a detection is a true positive in the LRP error
# A positive with fewer false positives above it drives no gradient (released code).
MIN_FALSE_POSITIVES = 1e-5


@breaks_graph
def alrp_loss(
    logits: Tensor,
    targets: Tensor,
    loc_errors: Tensor,
    delta: float = 1.0,
    group: dist.ProcessGroup | None = None,
    entries: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Classification and localisation part of aLRP Loss. Add them: their sum is the mean LRP error.

    Ranking is not additive: the loss of a batch is not the mean of the losses of its images. The loss ranks the given
    batch, or with a group the joined batch of all its processes. Then the values are those of the joined batch, the
    same on every process, and backward gives each process d(value)/d(its own inputs), unscaled.

    `classification.backward()` reaches the logits only, by the error-driven update: positives get <= 0, negatives
    >= 0, both with the same sum of magnitudes; ignored entries get 0. `localisation.backward()` reaches loc_errors
    only. Backward through either is not differentiable again.

    Args:
        logits: (M,) any float dtype, before the sigmoid, of every anchor and class of the batch.
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 or another value ignored.
        loc_errors: (P,) E(k) = (1 - IoU) / (1 - tau) >= 0 of the positives, in the order of logits[targets == 1].
        delta: half-width of the smoothed step between two logits, > 0.
        group: process group to rank over; None ranks within this process. Every process must take part, with
            whatever it has.
        entries: (P,) int64, the indices of the targets that are 1, ascending. Give them if you have them, so that
            nothing waits for a GPU. They are not checked.
    Returns:
        two scalars, classification in [0, 1) and localisation >= 0, float64 for float64 logits and float32 for
        others. Both are 0 with zero gradients if there is no positive, and NaN if any logit is not finite. A NaN in
        loc_errors shows in the localisation part and in the gradients of the logits, not in the classification part.
    Raises:
        ValueError: delta is not a positive number below 1e300, or shapes do not fit.

    Example:
        The second positive lies below the negative, and is lifted as much as that is pushed down.

        >>> logits = torch.tensor([3.0, 0.0, 2.0, -4.0], requires_grad=True)
        >>> targets = torch.tensor([1, 1, 0, -1])
        >>> loc_errors = torch.tensor([0.2, 0.8], requires_grad=True)
        >>> classification, localisation = alrp_loss(logits, targets, loc_errors)
        >>> round(classification.item(), 4), round(localisation.item(), 4)
        (0.1667, 0.2667)
        >>> (classification + localisation).backward()
        >>> [round(g, 4) for g in logits.grad.tolist()]
        [-0.0, -0.2, 0.2, 0.0]
        >>> [round(g, 4) for g in loc_errors.grad.tolist()]
        [0.6667, 0.1667]
    """
    ranking = Ranking(logits, targets, delta, group, loc_errors, entries)
    if ranking.on_kernels:
        from .alrp_triton import Localisation, alrp_parts

        parts = alrp_parts(ranking, MIN_FALSE_POSITIVES)
        localisation = Localisation.apply(loc_errors, (parts.localisation,), parts.weight[ranking.own])
        return ranking.attach(logits, targets, parts.classification, parts.excess), localisation
    false_positives, rank, errors = ranking.false_positives, ranking.rank, ranking.weights

    # The LRP error of i is the sum of its false positives and of E(k) over the positives k from i up, by its rank. Its
    # target, with i ranked first, is E(i) / rank(i). The update corrects what is above the target.
    excess = (false_positives + ranking.weight_above) / rank
    excess = torch.where(false_positives <= MIN_FALSE_POSITIVES, 0, excess)
    classification = ranking.loss(logits, targets, false_positives / rank, excess)

    # The localisation part is the mean over i of the sum of E(k) over s_k >= s_i, by rank(i). Here the step between
    # positives is hard (released code, but for ties, which all count here). Swap the sums: each E(k) gets a weight.
    weight = ranking.sum_over_lower(1 / rank) / max(1, ranking.num_positives)
    # The value is of all processes' errors; `own - own.detach()` is 0 and carries the gradient of this process's.
    own = (weight[ranking.own] * loc_errors.double()).sum()
    localisation = (weight * errors).sum() + (own - own.detach()) + ranking.not_finite
    return classification, localisation.to(classification.dtype)


def localisation_errors(overlaps: Tensor, kind: str, tau: float = TAU) -> Tensor:
    """E of aLRP Loss for each positive, from its overlap with its object: (P,) to (P,), 0 for a perfect box.

    (1 - IoU) / (1 - τ); for GIoU and DIoU, which reach down to -1, (1 - GIoU)/2 / (1 - τ). It may exceed 1.
    """
    errors = (1 - overlaps) / (1 - tau)
    return errors if kind == "iou" else errors / 2


@dataclass(frozen=True, kw_only=True)
class ALRPSettings(LossSettings):
    """Settings of aLRP Loss; the defaults are the paper's."""

    label: ClassVar[str] = "aLRP"
    hyper_parameters: ClassVar[tuple[str, ...]] = ("delta",)
    ranks: ClassVar[bool] = True
    update_ratios: ClassVar[tuple[float, float]] = (1e-3, 2.5e-3)
    # Scores that learn the quality of boxes need no second opinion on it (Rank & Sort Loss, arXiv 2107.11669).
    model_defaults: ClassVar[Mapping[str, Any]] = {"centerness": None, **RANKED_HEADS, "append_objects": False}

    name: Literal["alrp"] = "alrp"
    loc_error: Literal["iou", "diou", "giou"] = "giou"
    """Overlap that E, the localisation error of a positive, is made of."""
    box_weights: Literal["rank", "equal"] = "rank"
    """A box counts by the positives that rank below it, as published; or all count alike, for short trainings."""
    delta: float = 1.0
    """Half-width of the smoothed step between two logits, > 0."""
    self_balance: bool = True
    """Weigh the localisation part such that both parts are alike; with equal `box_weights` in every step."""
    balance_every: int | None = None
    """Steps between two weights of the balance, from 1 on; null: an epoch, as published. Does nothing
    without `self_balance`, or with equal `box_weights`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "delta")
        if self.balance_every is not None and self.balance_every < 1:
            raise ValueError(f"balance_every must be at least 1, got {self.balance_every}")

    @property
    def step_half_width(self) -> float:
        return self.delta

    def balance_period(self, steps_per_epoch: int) -> int | None:
        by_means = self.self_balance and self.box_weights == "rank"
        return (self.balance_every or steps_per_epoch) if by_means else None


class ALRPLoss(RankingLoss):
    """aLRP Loss of a head, with the weight of its localisation part as state; arguments as of `RankingLoss`.

    With `self_balance` the weight, 50 at first, changes after every `balance_every` calls in training mode: count
    every call, also those whose gradients are accumulated. Left out, call `balance.update()` after each epoch.

    Example:
        >>> criterion = ALRPLoss(balance_every=500)
        >>> logits = torch.tensor([[3.0, -4.0], [0.0, -4.0], [2.0, -4.0]], requires_grad=True)
        >>> labels = torch.tensor([0, 0, 2])  # 2, the number of classes: background
        >>> gt_boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]])
        >>> classification, localisation = criterion(logits, labels, gt_boxes, gt_boxes)
        >>> round(classification.item(), 4), round(localisation.item(), 4)
        (0.1667, 0.0)
        >>> (classification + localisation).backward()
    """

    Settings = ALRPSettings
    settings: ALRPSettings

    def __init__(self, settings: ALRPSettings | None = None, *, group: Group = None, **keys: Any) -> None:
        super().__init__(settings, group=group, **keys)
        if self.settings.balance_period(1) is not None:
            self.balance = SelfBalance(every=self.settings.balance_every)

    @torch.compiler.disable
    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        pred_boxes: Tensor | None = None,
        gt_boxes: Tensor | None = None,
        *,
        loc_errors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Classification and weighted localisation part, to be added.

        Args:
            logits: (…, K) any float dtype, before the sigmoid, of the whole batch.
            targets: (…) integer labels, 0 to K - 1 a class, K background, negative ignored; or (…, K) of any dtype, 1
                positive, 0 negative, -1 ignored.
            pred_boxes, gt_boxes: xyxy, any unit, (P, 4) of the positives in their order, or (…, 4) of all positions,
                of which those of the positives count. Where both are one shape, but some positions have several
                positives, give logits[None] and targets[None]: (P, 4) is then of the positives alone.
            loc_errors: in place of boxes, (P,) or (…), the errors >= 0 themselves, such as (1 - IoU) / 0.5.
        Returns:
            two scalars, float64 for float64 logits and float32 for others; 0 with zero gradients if there is no
            positive, and NaN if any logit is not finite.
        Raises:
            ValueError: shapes do not fit, or fit both the positives and the positions where these differ; labels are
                not integers; or boxes are missing, or there beside loc_errors.
        """
        flat, group = self._flat(logits, targets)
        refuse_both(pred_boxes, gt_boxes, loc_errors, "loc_errors")
        if loc_errors is None:
            kind = self.settings.loc_error
            errors = localisation_errors(flat.overlaps(kind, pred_boxes, gt_boxes), kind)
        else:
            errors = at_least_float32(flat.of_positives(loc_errors, "loc_errors"))
        return self._result(*self._parts(flat, errors, group), group)

    def of_matched(self, matched: Matched, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        kind = self.settings.loc_error
        errors = localisation_errors(matched.overlaps(kind), kind, matched.tau)
        return weighted_sum(*self._parts(matched, errors, group))

    def _parts(
        self, ranked: Flat | Matched, errors: Tensor, group: dist.ProcessGroup | None
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Both parts, unweighted, and the weight of the second."""
        settings = self.settings
        loss_cls, loss_loc = alrp_loss(ranked.logits, ranked.targets, errors, settings.delta, group, ranked.entries)
        if settings.box_weights == "equal":
            loss_loc = ratio_over_group(errors.sum(), torch.ones_like(errors).sum(), group)
        if self.balance is not None:
            return loss_cls, loss_loc, self.balance.weight.clone()  # which may change before backward
        return loss_cls, loss_loc, equal_parts(loss_cls, loss_loc) if settings.self_balance else 1.0
