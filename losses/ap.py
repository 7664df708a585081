"""Average Precision Loss (arXiv 1904.06373)."""

import torch
import torch.distributed as dist
from torch import Tensor

from losses.ranking import Ranking


def ap_loss(logits: Tensor, targets: Tensor, delta: float = 1.0, group: dist.ProcessGroup | None = None) -> Tensor:
    """Interpolated AP Loss."""
    ranking = Ranking(logits, targets, delta, group)
    imprecision = ranking.false_positives / ranking.rank  # 1 - precision
    # The running maximum of the precision, from the lowest score upwards.
    order = ranking.scores.argsort()
    errors = torch.empty_like(imprecision)
    errors[order] = imprecision[order].cummin(0).values
    return ranking.loss(errors, errors)
