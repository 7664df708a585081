"""Rank & Sort Loss as sums over all pairs, in float64, from the equations of arXiv 2107.11669."""

from typing import NamedTuple

import torch
from ranking_oracle import scatter, step
from torch import Tensor


class Expected(NamedTuple):
    ranking: Tensor
    sorting: Tensor
    grad_ranking: Tensor
    grad_sorting: Tensor


def dense_rank_sort(logits: Tensor, targets: Tensor, ious: Tensor, delta: float) -> Expected:
    logits, ious = logits.detach().double(), ious.detach().double()
    positive, negative = targets == 1, targets == 0
    p, n = logits[positive], logits[negative]
    num = max(1, len(p))
    negatives_above = step(n[None, :] - p[:, None], delta)  # H(x_ij)
    positives_above = step(p[None, :] - p[:, None], delta)
    better = ious[None, :] >= ious[:, None]

    # Eq. 4: current errors; Eq. 5: target errors
    false_positives, rank_plus = negatives_above.sum(1), positives_above.sum(1)
    ranking = false_positives / (rank_plus + false_positives)
    sorting_now = (positives_above * (1 - ious)).sum(1) / rank_plus
    in_place = positives_above * better
    sorting = sorting_now - (in_place * (1 - ious)).sum(1) / in_place.sum(1)

    # Eq. 7 to 9: primary terms L_ij, row i being the error of positive i distributed over its causes j
    to_negatives = ranking[:, None] * proportions(negatives_above)
    to_positives = sorting[:, None] * proportions(positives_above * ~better)
    grad_ranking = scatter(logits, positive, negative, -to_negatives.sum(1) / num, to_negatives.sum(0) / num)
    moved = (to_positives.sum(0) - to_positives.sum(1)) / num
    grad_sorting = scatter(logits, positive, negative, moved, torch.zeros_like(n))
    return Expected(ranking.sum() / num, sorting.sum() / num, grad_ranking, grad_sorting)


def proportions(weights: Tensor) -> Tensor:
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 1e-10, weights / total, 0)
