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
        self.logits, self.targets = logits, targets
        scores = logits.detach()
        self.own_index = (targets == 1).nonzero().squeeze(1)
        num_own = len(self.own_index)
        values = scores.new_zeros(num_own) if values is None else values.detach()
        if values.shape != (num_own,):
            raise ValueError(f"expected one value per positive, ({num_own},), got {tuple(values.shape)}")
        own = torch.stack([scores[self.own_index].double(), values.double()])
        gathered, self.own = _gather_columns(own, group)
        self.scores, self.values = torch.nan_to_num(gathered[0], 0.0, 0.0, 0.0), gathered[1]
        self.num_positives = len(self.scores)

        not_finite = 0 * scores.sum(dtype=_compute_dtype(scores)).double()  # 0, or NaN
        if self.num_positives:
            self.bins = ScoreBins(self.scores, delta, _compute_dtype(scores))
            self.slots = self.bins.locate(scores, targets)
            histogram = self.bins.histogram(scores, self.slots)
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
        return _ErrorDriven.apply(self.logits, self.targets, mean, errors, self)

    def gradient(self, logits: Tensor, targets: Tensor, errors: Tensor) -> Tensor:
        """Gradient (M,) of the own logits, driven by errors (P,)."""
        if not self.num_positives:
            return torch.zeros_like(logits)
        errors = errors / self.num_positives
        weights = torch.where(self.false_positives > 0, errors / self.false_positives, 0)
        slots, self.slots = self.slots, None
        if slots is None:  # a second backward through a retained graph
            slots = self.bins.locate(logits, targets)
        gradient = self.bins.weighted_steps(weights, logits, slots)
        gradient[self.own_index] = -errors[self.own].to(gradient.dtype)
        return gradient


class _ErrorDriven(torch.autograd.Function):
    """Gives a value the gradient that errors drive, worked out when asked for."""

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, value: Tensor, errors: Tensor, ranking: Ranking) -> Tensor:
        ctx.save_for_backward(logits, targets, errors)
        ctx.ranking = ranking
        return value.to(_compute_dtype(logits), copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, targets, errors = ctx.saved_tensors
        return ctx.ranking.gradient(logits, targets, errors * grad_output.double()), None, None, None, None


def _compute_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


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
