"""The ranking that AP, aLRP and Rank & Sort Loss share, and the update that it drives (arXiv 2009.13592, Sec. 3).

Let x_ij = s_j - s_i be the difference of two logits and H the step smoothed over [-delta, delta]. Every positive i has
rank(i) = rank+(i) + N_FP(i): N_FP(i) is the sum of H(x_ij) over the negatives j, and rank+(i) is 1 plus the sum of
H(x_ik) over the other positives k.

A loss gives every positive an error g(i), which says how far it is from its target. The error-driven update distributes
the error: g(i) lifts positive i, and pushes each negative j down by its share H(x_ij) / N_FP(i). Lift and push balance.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..entries import require_flat
from ..finite import nan_unless_finite
from ..group_sums import require_group
from ..precision import LARGEST
from .logit_bins import LogitBins
from .torch_passes import make_passes


class Ranking:
    """Ranks of the positives among all logits of a process group, or of this process.

    Autograd sees none of this; `loss` attaches the gradient. Memory and time are O(M + P log P).

    Args:
        logits: (M,) float.
        targets: (M,) 1 positive, 0 negative, -1 ignored.
        delta: half-width of the smoothed step, > 0.
        group: process group to rank over, None for this process alone. Each of its processes takes part in the same
            three collectives (two if there is no positive), whatever it holds.
        weights: (own positives,) a number for each positive, in the order of logits[targets == 1]; None for none.
        entries: (own positives,) int64, the indices of the targets that are 1, ascending, if known. None searches for
            them and waits for a GPU. They are not checked: wrong ones make wrong ranks.
    Raises:
        ValueError: delta is not a positive number below 1e300, or shapes do not fit.

    Attributes, all float64, of the P positives of all processes in the order of the processes:
        positive_logits: (P,), 0 where not finite.
        positions: (P,), the same on an axis on which only differences up to delta count; see `place`.
        weights: (P,) the given numbers, 0 if none.
        false_positives, positive_rank, rank: (P,) N_FP, rank+ and their sum; NaN if any logit is not finite.
        weight_above: (P,) sum of weights[k] * H(x_ik) over the other positives k.
        own: slice of the positives of this process.
        own_entries: (own positives,) int64, their indices among the logits.
        compute_dtype: float64 for float64 logits and float32 for others; type of the loss.
        not_finite: 0, or NaN if any logit is not finite.
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        delta: float,
        group: dist.ProcessGroup | None = None,
        weights: Tensor | None = None,
        entries: Tensor | None = None,
    ) -> None:
        if isinstance(delta, bool) or not (delta > 0 and float(delta) < LARGEST):
            raise ValueError(f"delta must be a positive number below {LARGEST:g}, got {delta}")
        require_flat(logits, targets)
        require_group(group)
        logits = logits.detach()

        # All that ranking needs of the positives of other processes is two numbers each, so those are exchanged;
        # the far more numerous negatives stay where they are.
        self.compute_dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        self.passes = make_passes(logits)
        self.own_entries = self.passes.find_entries(targets, entries)
        num_own = len(self.own_entries)
        if weights is not None and weights.shape != (num_own,):
            raise ValueError(f"expected {num_own} values, one for each positive, got {tuple(weights.shape)}")
        own = self.passes.positives(logits, self.own_entries, None if weights is None else weights.detach())
        (self.positive_logits, self.weights), self.own = _gather_columns(own, group)
        self.num_positives = len(self.positive_logits)

        # The negatives only matter by how many lie in each bin and by their sum, so one pass over the M entries
        # reduces them to a histogram of 2P + 1 bins, which adds up over processes as well.
        self.positions = self.positive_logits
        if self.num_positives:
            bins = self.passes.make_bins(self.positive_logits, self.weights, delta, self.compute_dtype, logits)
            self.positions = bins.positions
            negatives = self.passes.histogram(logits, targets)
        else:
            negatives = nan_unless_finite(logits).repeat(2, 1)
        # The count is NaN in the last bin if any logit is not finite. That bin lies above every positive, so the NaN
        # reaches all ranks, and by the sum over the group all processes: they skip the step together.
        if group is not None:
            dist.all_reduce(negatives, group=group)
        self._last_count = negatives[0, -1]
        if self.num_positives:
            ranks = self.passes.rank(negatives, self.weights)
        else:
            ranks = self.positive_logits.new_zeros(4, 0)
        self.false_positives, self.positive_rank, self.rank, self.weight_above = ranks

    @property
    def not_finite(self) -> Tensor:
        return 0 * self._last_count

    @property
    def on_kernels(self) -> bool:
        """Whether there are positives, and kernels for what is done with them."""
        return self.passes.on_kernels and self.num_positives > 0

    def sum_over_lower(self, weights: Tensor) -> Tensor:
        """Sum over the positives i with s_i <= s_k of weights[i], for each positive k: (P,) from (P,)."""
        # Prefix sums in the order of the logits; the search from the right lets equal logits count each other.
        if not self.num_positives:
            return torch.zeros_like(weights)
        bins = self.passes.bins
        assert isinstance(bins, LogitBins)
        ordered, order = bins.ordered, bins.ascending
        running = torch.nn.functional.pad(weights[order].cumsum(0), (1, 0))
        return running[torch.searchsorted(ordered, self.positive_logits, right=True)]

    def running_min_from_below(self, values: Tensor) -> Tensor:
        """Smallest of the values of the positives up to each one in the order of the logits: (P,) from (P,)."""
        if not self.num_positives:
            return values
        assert isinstance(self.passes.bins, LogitBins)
        order = self.passes.bins.ascending
        return torch.empty_like(values).index_copy_(0, order, values[order].cummin(0).values)

    def loss(self, logits: Tensor, targets: Tensor, terms: Tensor, errors: Tensor) -> Tensor:
        """Mean over the positives of terms (P,), whose backward gives the gradient that the errors (P,) drive.

        Returns:
            scalar, float64 for float64 logits and float32 for others; 0 with a zero gradient if P = 0.
        """
        mean = terms.sum() / max(1, self.num_positives) + self.not_finite
        return self.attach(logits, targets, mean.to(self.compute_dtype), errors)

    def attach(self, logits: Tensor, targets: Tensor, value: Tensor, errors: Tensor) -> Tensor:
        """The value, with the gradient of the logits that the errors (P,) drive."""
        return _ErrorDriven.apply(logits, targets, (value,), errors, self)

    def gradient(self, logits: Tensor, targets: Tensor, errors: Tensor, factor: Tensor) -> Tensor:
        """Gradient (M,) of this process's logits, driven by the errors (P,) times a factor, a scalar."""
        if not self.num_positives:
            return torch.zeros_like(logits)
        return self.passes.gradient(self, logits, targets, errors, factor)


class _ErrorDriven(torch.autograd.Function):
    """Gives a value the gradient of the error-driven update, and works it out in backward only."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, value: tuple[Tensor], errors: Tensor, ranking: Ranking
    ) -> Tensor:
        ctx.save_for_backward(logits, targets, errors)
        ctx.ranking = ranking
        return value[0]  # out of a tuple it is no input, of which a result must be a copy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, targets, errors = ctx.saved_tensors
        return ctx.ranking.gradient(logits, targets, errors, grad_output), None, None, None, None


def _gather_columns(own: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, slice]:
    """Joins the (R, n) tensors of all processes, n differing, along n; and says which columns are this process's."""
    if group is None:
        return own, slice(0, own.shape[1])
    count = torch.full((1,), own.shape[1], device=own.device)  # waits for no device
    gathered = [torch.empty_like(count) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, count, group=group)
    counts = torch.cat(gathered).tolist()  # waits for a GPU; sizes are needed on the CPU
    # all_gather wants equal shapes: pad to the longest, and cut the padding off again.
    parts = [own.new_empty(own.shape[0], max(counts)) for _ in counts]
    if max(counts):
        padded = torch.nn.functional.pad(own, (0, max(counts) - own.shape[1]))
        dist.all_gather(parts, padded, group=group)
    start = sum(counts[: dist.get_rank(group)])
    joined = torch.cat([part[:, :n] for part, n in zip(parts, counts, strict=True)], dim=1)
    return joined, slice(start, start + own.shape[1])
