"""Average Precision Loss (Chen et al., arXiv 1904.06373), the predecessor of aLRP Loss."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .box_loss import BoxLoss, box_loss
from .compiling import breaks_graph
from .loss import LossSettings, require_positive, weighted_sum
from .matched import Matched
from .module import RankingLoss
from .ranking import Ranking


@breaks_graph
def ap_loss(
    logits: Tensor,
    targets: Tensor,
    delta: float = 1.0,
    group: dist.ProcessGroup | None = None,
    entries: Tensor | None = None,
) -> Tensor:
    """1 - interpolated average precision; backward follows the error-driven update.

    Args:
        logits: (M,) any float dtype, before the sigmoid, of every anchor and class of the batch.
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 or another value ignored.
        delta: half-width of the smoothed step between two logits, > 0.
        group: process group to rank over; None ranks within this process. As in `alrp_loss`.
        entries: (P,) int64, as in `alrp_loss`.
    Returns:
        scalar in [0, 1), float64 for float64 logits and float32 for others. 0 with a zero gradient if there is no
        positive, NaN if any logit is not finite.
    Raises:
        ValueError: delta is not a positive number below 1e300, or shapes do not fit.

    Example:
        Precision is 1 at the first positive and 2/3 at the second, below the negative.

        >>> logits = torch.tensor([3.0, 0.0, 2.0, -4.0], requires_grad=True)
        >>> loss = ap_loss(logits, torch.tensor([1, 1, 0, -1]))
        >>> round(loss.item(), 4)
        0.1667
        >>> loss.backward()
        >>> [round(g, 4) for g in logits.grad.tolist()]
        [-0.0, -0.1667, 0.1667, 0.0]
    """
    ranking = Ranking(logits, targets, delta, group, entries=entries)
    if ranking.on_kernels:
        from .ap_triton import ap_parts

        return ranking.attach(logits, targets, *ap_parts(ranking))
    imprecision = ranking.false_positives / ranking.rank  # 1 - prec(i)
    # Interpolated precision is the best at this logit or any lower one: a running minimum of 1 - prec.
    errors = ranking.running_min_from_below(imprecision)
    return ranking.loss(logits, targets, errors, errors)


@dataclass(frozen=True, kw_only=True)
class APSettings(LossSettings):
    """Settings of AP Loss with a box loss beside it; the defaults are the paper's."""

    label: ClassVar[str] = "AP"
    hyper_parameters: ClassVar[tuple[str, ...]] = ("delta",)
    ranks: ClassVar[bool] = True
    update_ratios: ClassVar[tuple[float, float]] = (1e-3, 2.5e-3)

    name: Literal["ap"] = "ap"
    box_loss: BoxLoss = "smooth_l1"
    """Localisation part: Smooth L1 of the offsets, or 1 - IoU, DIoU, GIoU or -ln IoU of the boxes."""
    delta: float = 1.0
    """Half-width of the smoothed step between two logits, > 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "delta")

    @property
    def step_half_width(self) -> float:
        return self.delta


class APLoss(RankingLoss):
    """AP Loss of a head, and the mean box loss of its positives; arguments as of `RankingLoss`."""

    Settings = APSettings
    settings: APSettings

    @torch.compiler.disable
    def forward(
        self, logits: Tensor, targets: Tensor, pred_boxes: Tensor | None = None, gt_boxes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Classification and localisation part, to be added; the second is 0 without boxes.

        Args:
            logits, targets: as of `ALRPLoss`.
            pred_boxes, gt_boxes: as of `ALRPLoss`; with `box_loss` "smooth_l1" offsets in place of boxes.
        Returns, Raises:
            as of `ALRPLoss`.
        """
        flat, group = self._flat(logits, targets)
        loss_cls = ap_loss(flat.logits, flat.targets, self.settings.delta, group, flat.entries)
        if pred_boxes is None and gt_boxes is None:
            return self._result(loss_cls, torch.zeros_like(loss_cls), 1.0, group)
        pred, gt = flat.boxes(pred_boxes, gt_boxes)
        matched = Matched(flat.logits, flat.targets, flat.entries, pred, gt, pred, lambda: gt)
        return self._result(loss_cls, box_loss(matched, self.settings.box_loss, group), 1.0, group)

    def of_matched(self, matched: Matched, group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
        loss_cls = ap_loss(matched.logits, matched.targets, self.settings.delta, group, matched.entries)
        return weighted_sum(loss_cls, box_loss(matched, self.settings.box_loss, group))
