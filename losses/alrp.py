"""Average Localisation-Recall-Precision Loss (arXiv 2009.13592)."""

import torch
import torch.distributed as dist
from torch import Tensor

from losses.ranking import Ranking


def alrp_loss(
    logits: Tensor,
    targets: Tensor,
    loc_errors: Tensor,
    delta: float = 1.0,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Classification and localisation part of aLRP Loss; their sum is the loss."""
    ranking = Ranking(logits, targets, delta, group, loc_errors)
    false_positives, rank, errors = ranking.false_positives, ranking.rank, ranking.values
    num_positives = max(1, ranking.num_positives)

    # The LRP error of i above its target E(i) / rank(i): what is left to drive the update.
    excess = (false_positives + ranking.sum_over_other_positives(errors)) / rank
    excess = torch.where(false_positives <= 1e-5, 0, excess)
    classification = ranking.loss(false_positives / rank, excess)

    # mean over i of (sum of E(k) over s_k >= s_i) / rank(i), summed over i first.
    share = ranking.sum_over_lower_positives(1 / rank) / num_positives
    own = (share[ranking.own] * loc_errors.double()).sum()
    localisation = (share * errors).sum() + (own - own.detach()) + ranking.not_finite
    return classification, localisation.to(classification.dtype)
