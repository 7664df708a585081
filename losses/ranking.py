"""Error-driven ranking losses: the part that AP Loss and aLRP Loss share.

Every positive i is ranked among all positives and negatives (paper: arXiv 2009.13592, Sec. 3):
rank(i) = rank+(i) + N_FP(i), with x_ij = s_j - s_i, N_FP(i) = sum over negatives j of H(x_ij) and
rank+(i) = 1 + sum over the other positives k of H(x_ik). H is a step smoothed over [-delta, delta].

A loss gives each positive an error g(i) (its distance from the target). Error-driven update then defines the
gradient: g(i) pulls positive i up, and pushes the negatives above i down in proportion to H(x_ij) / N_FP(i).
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from losses.bins import ScoreBins

# Below this share of negatives that matter, the others are dropped instead of masked.
SPARSE = 0.4


class Ranking:
    """Ranks of the positives of a process group (or of this process) among all its logits.

    Args:
        logits: (M,) float.
        targets: (M,) 1 positive, 0 negative, -1 ignored.
        delta: half-width of the smoothed step, > 0.
        group: process group to rank over; None ranks within this process. Uses three collectives.
        values: (number of own positives,) a number that belongs to each positive, or None.
    Raises:
        ValueError: delta is not a positive number, or shapes do not fit.

    Attributes (float64, over the positives of all processes, in the order of ranks):
        scores, values: (P,) scores and given numbers. Scores that are not finite count as 0 here.
        false_positives, positive_rank, rank: (P,) N_FP, rank+ and their sum; NaN if any logit is not finite.
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        delta: float,
        group: dist.ProcessGroup | None = None,
        values: Tensor | None = None,
    ) -> None:
        if not (delta > 0 and math.isfinite(delta)):
            raise ValueError(f"delta must be a positive number, got {delta}")
        if logits.dim() != 1 or logits.shape != targets.shape:
            raise ValueError(
                f"logits and targets must be (M,) both, got {tuple(logits.shape)} and {tuple(targets.shape)}"
            )
        self.logits = logits
        scores = _compute_type(logits.detach())
        self.own_index = (targets == 1).nonzero().squeeze(1)
        num_own = len(self.own_index)
        values = scores.new_zeros(num_own) if values is None else values.detach()
        if values.shape != (num_own,):
            raise ValueError(f"expected one value per positive, ({num_own},), got {tuple(values.shape)}")
        own = torch.stack([scores[self.own_index].double(), values.double()])
        gathered, self.own = _gather_columns(own, group)
        self.scores, self.values = torch.nan_to_num(gathered[0], 0.0, 0.0, 0.0), gathered[1]
        self.num_positives = len(self.scores)

        not_finite = scores.sum().double() * 0  # 0, or NaN
        if self.num_positives:
            self.bins = ScoreBins(self.scores, delta, scores.dtype)
            histogram = self._count_negatives(scores, targets)
        else:
            histogram = scores.new_zeros((2, 1), dtype=torch.float64)
        histogram[0, -1] += not_finite
        if group is not None:
            dist.all_reduce(histogram, group=group)
        self.not_finite = histogram[0, -1] * 0
        if self.num_positives:
            self.false_positives = self.bins.hits(histogram)
            self.positive_rank = 1 + self.sum_over_other_positives(torch.ones_like(self.scores))
        else:
            self.false_positives = self.positive_rank = self.scores
        self.rank = self.positive_rank + self.false_positives

    def sum_over_other_positives(self, weights: Tensor) -> Tensor:
        """Sum over the positives k != i of weights[k] * H(x_ik), for each positive i: (P,) from (P,)."""
        if not self.num_positives:
            return weights
        where = torch.searchsorted(self.bins.breakpoints, self.scores, right=True)
        histogram = weights.new_zeros(2, 2 * self.num_positives + 1)
        histogram.index_add_(1, where, torch.stack([weights, weights * self.scores]))
        return self.bins.hits(histogram) - weights / 2  # H(x_ii) = 1/2

    def sum_over_lower_positives(self, weights: Tensor) -> Tensor:
        """Sum over the positives i with s_i <= s_k of weights[i], for each positive k: (P,) from (P,)."""
        ordered, order = self.scores.sort()
        running = torch.nn.functional.pad(weights[order].cumsum(0), (1, 0))
        return running[torch.searchsorted(ordered, self.scores, right=True)]

    def loss(self, value: Tensor, errors: Tensor) -> Tensor:
        """Mean of value (P,) as a scalar whose gradient with respect to the logits errors (P,) drive.

        float32, or float64 for float64 logits. 0 with a zero gradient where there is no positive.
        """
        mean = value.sum() / max(1, self.num_positives) + self.not_finite
        return _ErrorDriven.apply(self.logits, mean, errors, self)

    def _count_negatives(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Histogram of the own negatives that some positive sees; remembers where they are."""
        lowest = self.bins.edges[0]
        relevant = (targets == 0) & (scores > lowest)
        self.index = None
        # Dropping costs a synchronisation on a GPU and saves little there.
        if scores.device.type == "cpu" and relevant.count_nonzero() < SPARSE * len(scores):
            self.index = relevant.nonzero().squeeze(1)
            scores = scores[self.index]
        else:
            scores = torch.where(relevant, scores, lowest.nextafter(lowest.new_tensor(-torch.inf)))
        self.slots = self.bins.locate(scores)
        return self.bins.histogram(scores, self.slots)

    def gradient(self, logits: Tensor, slots: Tensor, index: Tensor | None, errors: Tensor) -> Tensor:
        """Gradient (M,) of the own logits, from errors (P,) divided by P."""
        scores = _compute_type(logits)
        weights = torch.where(self.false_positives > 0, errors / self.false_positives, 0)
        push = self.bins.weighted_steps(weights)
        if index is None:
            gradient = push(scores, slots)
        else:
            gradient = torch.zeros_like(scores).index_copy_(0, index, push(scores[index], slots))
        gradient[self.own_index] = -errors[self.own].to(gradient.dtype)
        return gradient.to(logits.dtype)


class _ErrorDriven(torch.autograd.Function):
    """Carries a loss value; works its gradient out when asked, by the errors instead of by differentiation."""

    @staticmethod
    def forward(ctx, logits: Tensor, value: Tensor, errors: Tensor, ranking: Ranking) -> Tensor:
        slots = ranking.slots if ranking.num_positives else None
        ctx.save_for_backward(logits, errors, slots, ranking.index if ranking.num_positives else None)
        ctx.ranking = ranking
        return value.to(torch.float64 if logits.dtype == torch.float64 else torch.float32, copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        logits, errors, slots, index = ctx.saved_tensors
        if slots is None:
            return torch.zeros_like(logits), None, None, None
        errors = errors * (grad_output.double() / ctx.ranking.num_positives)
        return ctx.ranking.gradient(logits, slots, index, errors), None, None, None


def _compute_type(logits: Tensor) -> Tensor:
    return logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32).contiguous()


def _gather_columns(own: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, slice]:
    """Joins the columns of every process's (R, n) tensor, n differing; also says which columns are one's own."""
    if group is None:
        return own, slice(None)
    count = torch.tensor([own.shape[1]], device=own.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, count, group=group)
    counts = torch.cat(counts).tolist()
    padded = own.new_zeros(own.shape[0], max(counts))
    padded[:, : own.shape[1]] = own
    parts = [torch.empty_like(padded) for _ in counts]
    if max(counts):
        dist.all_gather(parts, padded, group=group)
    start = sum(counts[: dist.get_rank(group)])
    joined = torch.cat([part[:, :n] for part, n in zip(parts, counts, strict=True)], dim=1)
    return joined, slice(start, start + own.shape[1])
