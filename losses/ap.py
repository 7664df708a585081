"""Average Precision Loss (Chen et al., arXiv 1904.06373), the predecessor of aLRP Loss."""

import torch
import torch.distributed as dist
from torch import Tensor

from .ranking.ranking import Ranking


def ap_loss(
    logits: Tensor,
    targets: Tensor,
    delta: float = 1.0,
    group: dist.ProcessGroup | None = None,
    positives: Tensor | None = None,
) -> Tensor:
    """1 - interpolated average precision; backward follows the error-driven update.

    Args:
        logits: (M,) any float dtype, before the sigmoid, of every anchor and class of the batch.
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 ignored.
        delta: half-width of the smoothed step between two logits, > 0.
        group: process group to rank over; None ranks within this process. As in `alrp_loss`.
        positives: (P,) int64, as in `alrp_loss`.
    Returns:
        scalar in [0, 1), float64 for float64 logits and float32 for others. 0 with a zero gradient if there is no
        positive, NaN if any logit is not finite.
    Raises:
        ValueError: delta is not a positive number, or shapes do not fit.

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
    ranking = Ranking(logits, targets, delta, group, positives=positives)
    imprecision = ranking.false_positives / ranking.rank  # 1 - prec(i)
    # Interpolation: from the lowest score up, the running maximum of the precision.
    order = ranking.scores.argsort()
    errors = torch.empty_like(imprecision)
    errors[order] = imprecision[order].cummin(0).values
    return ranking.loss(logits, targets, errors, errors)
