"""Average Localisation-Recall-Precision Loss (arXiv 2009.13592).

Where paper and released code differ, the released code made the published numbers and is followed; the places are
marked below.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from .ranking.ranking import Ranking

# A positive with fewer false positives above it drives no gradient (released code).
MIN_FALSE_POSITIVES = 1e-5


def alrp_loss(
    logits: Tensor,
    targets: Tensor,
    loc_errors: Tensor,
    delta: float = 1.0,
    group: dist.ProcessGroup | None = None,
    positives: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Classification and localisation part of aLRP Loss, to be added; their sum is the mean LRP error.

    Ranking is not additive: the loss of a batch is not the mean of the losses of its images. The set that is ranked
    is the given batch, with a group the batches of all its processes joined. Then the values are those of the joined
    batch, the same on every process, and backward gives each process d(value)/d(its own inputs), unscaled.

    `classification.backward()` reaches the logits only, by the error-driven update: positives get <= 0, negatives
    >= 0, both with the same sum of magnitudes; ignored entries get 0. `localisation.backward()` reaches loc_errors
    only. Backward through either is not differentiable again.

    Args:
        logits: (M,) any float dtype, before the sigmoid, of every anchor and class of the batch.
        targets: (M,) any integer, float or bool dtype: 1 positive, 0 negative, -1 ignored.
        loc_errors: (P,) E(k) = (1 - IoU) / (1 - tau) >= 0 of the positives, in the order of logits[targets == 1].
        delta: half-width of the smoothed step between two logits, > 0.
        group: process group to rank over; None ranks within this process. Every process must take part, with
            whatever it has.
        positives: (P,) int64, the indices of the targets that are 1, ascending, where the caller has them: then nothing
            waits for a GPU. Not checked.
    Returns:
        two scalars, classification in [0, 1) and localisation >= 0, float64 for float64 logits and float32 for
        others. Both are 0 with zero gradients if there is no positive, and NaN if any logit is not finite.
    Raises:
        ValueError: delta is not a positive number, or shapes do not fit.

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
    ranking = Ranking(logits, targets, delta, group, loc_errors, positives)
    false_positives, rank, errors = ranking.false_positives, ranking.rank, ranking.values

    # LRP error of i less its target E(i) / rank(i): what the update has left to correct.
    excess = (false_positives + ranking.values_above) / rank
    excess = torch.where(false_positives <= MIN_FALSE_POSITIVES, 0, excess)
    classification = ranking.loss(logits, targets, false_positives / rank, excess)

    # Mean over i of the sum of E(k) over s_k >= s_i, by rank(i): here the step between positives is hard (released
    # code, but for ties, which all count here). Summed over i first, it weights each E(k).
    weight = ranking.sum_over_lower(1 / rank) / max(1, ranking.num_positives)
    own = (weight[ranking.own] * loc_errors.double()).sum()
    localisation = (weight * errors).sum() + (own - own.detach()) + ranking.not_finite
    return classification, localisation.to(classification.dtype)
