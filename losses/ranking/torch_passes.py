"""The passes of a ranking over all M entries, and what they need of the positives between them.

Find the positives, make bins between their breakpoints, and a histogram of the negatives; rank the positives by that;
write the gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import triton_support
from ..entries import positive_entries
from ..finite import nan_unless_finite
from .logit_bins import LogitBins

if TYPE_CHECKING:
    from .ranking import Ranking
    from .triton_passes import TritonPasses


class TorchPasses:
    """The passes in PyTorch's operators, for any device; `TritonPasses` has the same as kernels.

    One object serves one ranking: a pass may keep for the next what it found.
    """

    on_kernels = False
    bins: LogitBins

    def __init__(self) -> None:
        self._slots: Tensor | None = None

    def find_entries(self, targets: Tensor, known: Tensor | None = None) -> Tensor:
        """Indices (P,) int64 of the targets (M,) that are 1, ascending: `known`, or a search that waits for a GPU."""
        return positive_entries(targets) if known is None else known

    def positives(self, logits: Tensor, entries: Tensor, weights: Tensor | None) -> Tensor:
        """(2, P) float64: logits of the entries (P,), 0 where they are not finite, and their weights, 0 if None."""
        # Bins need finite edges. A bad logit is not lost: the count of the negatives turns NaN by it.
        own = torch.nan_to_num(logits[entries].double(), nan=0.0, posinf=0.0, neginf=0.0)
        return torch.stack([own, torch.zeros_like(own) if weights is None else weights.double()])

    def make_bins(
        self, positive_logits: Tensor, weights: Tensor, delta: float, dtype: torch.dtype, logits: Tensor
    ) -> LogitBins:
        """Bins of the positives (P,) for logits (M,), to be located in that type; P > 0. The other passes use them."""
        self.bins = LogitBins(positive_logits, delta, dtype)
        return self.bins

    def histogram(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Count of the negatives in each bin, and the sum of their logits relative to the bin's origin.

        (2, 2P + 1) float64, contiguous. Bin 0 holds anything: what is below every breakpoint outranks no positive. The
        count in the last bin is NaN if any logit is not finite.
        """
        self._slots = self.bins.locate(logits, targets)
        histogram = self.bins.histogram(logits, self._slots)
        if logits.dtype == torch.float64:  # whose sum could overflow
            histogram[0, -1] += nan_unless_finite(logits)
        else:
            histogram[0, -1] += 0 * histogram[1].sum()
        return histogram

    def rank(self, negatives: Tensor, weights: Tensor) -> Tensor:
        """N_FP, rank+, rank, and the sum of weights[k] * H(x_ik) over the other positives k: (4, P) float64.

        Args:
            negatives: (2, 2P + 1) float64, their histogram over all processes. weights: (P,) float64.
        """
        false_positives, among, weight_above = self.bins.hits_of_positives(negatives, weights)
        positive_rank = 1 + among
        return torch.stack([false_positives, positive_rank, positive_rank + false_positives, weight_above])

    def gradient(self, ranking: Ranking, logits: Tensor, targets: Tensor, errors: Tensor, factor: Tensor) -> Tensor:
        """Gradient (M,) like logits that the errors (P,) times the factor drive, P > 0; call it after `histogram`."""
        false_positives = ranking.false_positives
        errors = errors * factor.double() / ranking.num_positives  # of a mean
        # Negative j gets the sum over i of errors[i] * H(x_ij) / N_FP(i). Where N_FP(i) is 0, every H(x_ij) is as well.
        weights = torch.where(false_positives > 0, errors / false_positives, 0)
        slots, self._slots = self._slots, None
        if slots is None:  # used up by an earlier backward through the same graph
            slots = self.bins.locate(logits, targets)
        gradient = self.bins.weighted_steps(weights, logits, slots)
        gradient[ranking.own_entries] = -errors[ranking.own].to(gradient.dtype)
        return gradient


def make_passes(logits: Tensor) -> TorchPasses | TritonPasses:
    """The fastest passes for these logits: kernels where Triton runs on their device, else operators."""
    if triton_support.usable(logits):
        from .triton_passes import TritonPasses

        return TritonPasses()
    return TorchPasses()
