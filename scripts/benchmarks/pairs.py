"""Ranking losses by comparing pairs, as others compute them: the gradient of M logits, written from the papers.

The published loop takes one positive after the other, P × N compares all at once, and Bucketed (Yavuz et al., "Bucketed
Ranking-based Losses for Efficient Training of Object Detectors", ECCV 2024) compares the positives with the mean of the
negatives between two of them, and gives each negative the gradient of its bucket over the bucket's size.
"""

import torch
from torch import Tensor

MIN_FALSE_POSITIVES, MIN_MISSORTED = 1e-5, 1e-10  # of aLRP Loss and of Rank & Sort Loss (released code)


def pairs_gradient(
    loss: str, logits: Tensor, targets: Tensor, values: Tensor, delta: float, rows: int, bucketed: bool = False
) -> Tensor:
    """d(loss)/d(logits), (M,) in the dtype of the logits.

    Args:
        loss: "aLRP", "AP" or "Rank & Sort".
        logits: (M,) float; targets: (M,) 1 positive, 0 negative.
        values: (P,) E of the positives; for Rank & Sort their badness, 1 - IoU.
        rows: positives that are compared at once.
    """
    positive = (targets == 1).nonzero().squeeze(1)
    p, order = logits[positive].sort()  # ascending, for the interpolation of AP Loss
    values = values[order].to(logits.dtype)
    relevant = ((targets == 0) & (logits > p[0] - delta)).nonzero().squeeze(1)
    negatives, sizes, buckets = logits[relevant], torch.ones_like(relevant, dtype=logits.dtype), None
    if bucketed:
        buckets = torch.searchsorted(p, negatives)
        negatives, sizes = _means(negatives, buckets, len(p) + 1)
    on_negatives, on_positives = torch.zeros_like(negatives), torch.zeros_like(p)
    running_min = p.new_full((1,), float("inf"))
    for start in range(0, len(p), rows):
        own = slice(start, start + rows)
        above = _step(negatives, p[own], delta)
        among = _step(p, p[own], delta)
        among[torch.arange(len(among)), torch.arange(len(p))[own]] = 0
        false_positives = above @ sizes
        if loss == "aLRP":
            errors = (false_positives + among @ values) / (1 + among.sum(1) + false_positives)
            errors = torch.where(false_positives > MIN_FALSE_POSITIVES, errors, 0)
        elif loss == "AP":
            imprecision = false_positives / (1 + among.sum(1) + false_positives)
            errors = torch.cat([running_min, imprecision]).cummin(0).values[1:]
            running_min = errors[-1:]
        else:
            errors = false_positives / (0.5 + among.sum(1) + false_positives)
            on_positives += _sorting(among, values, own)
        on_positives[own] -= errors
        on_negatives += torch.where(false_positives > 0, errors / false_positives, 0) @ above
    gradient = torch.zeros_like(logits)
    gradient[positive[order]] = on_positives / len(p)
    gradient[relevant] = (on_negatives if buckets is None else on_negatives[buckets]) / len(p)
    return gradient


def _step(others: Tensor, p: Tensor, delta: float) -> Tensor:
    """H(x_ij), (P, others)."""
    return (others - p[:, None]).div_(2 * delta).add_(0.5).clamp_(0, 1)


def _means(negatives: Tensor, buckets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean logit and size of each bucket; an empty one lies below all."""
    sizes = torch.zeros(count, dtype=negatives.dtype, device=negatives.device)
    sums = sizes.index_add(0, buckets, negatives)
    sizes.index_add_(0, buckets, torch.ones_like(negatives))
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), negatives.min() if len(negatives) else 0), sizes


def _sorting(among: Tensor, badness: Tensor, own: slice) -> Tensor:
    """P times the gradient of the sorting part that positives `own` drive: (P,)."""
    rank = 0.5 + among.sum(1)
    above = among @ badness + badness[own] / 2
    missorting = among * (badness > badness[own][:, None])
    missorted = missorting.sum(1)
    target = (above - missorting @ badness) / (rank - missorted)
    lift = torch.where(missorted > MIN_MISSORTED, above / rank - target, 0)
    gradient = torch.where(missorted > MIN_MISSORTED, lift / missorted, 0) @ missorting
    gradient[own] -= lift
    return gradient
