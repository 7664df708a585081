"""The three passes of a ranking over all M entries: find the positives, make the histogram, write the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .. import triton_support
from ..finite import nan_unless_finite
from .logit_bins import LogitBins, true_indices

if TYPE_CHECKING:
    from .triton_passes import TritonPasses


class TorchPasses:
    """The passes in PyTorch's operators, for any device; `TritonPasses` has the same as kernels.

    One object serves one ranking: a pass may keep for the next what it found.
    """

    def __init__(self) -> None:
        self._slots: Tensor | None = None

    def find_entries(self, targets: Tensor, known: Tensor | None = None) -> Tensor:
        """Indices (P,) int64 of the targets (M,) that are 1, ascending: `known`, or a search that waits for a GPU."""
        return true_indices(targets == 1) if known is None else known

    def histogram(self, bins: LogitBins, logits: Tensor, targets: Tensor) -> Tensor:
        """Count of the negatives in each bin, and the sum of their logits relative to the bin's origin.

        (2, 2P + 1) float64, contiguous. Bin 0 holds anything: what is below every breakpoint outranks no positive. The
        count in the last bin is NaN if any logit is not finite.
        """
        self._slots = bins.locate(logits, targets)
        histogram = bins.histogram(logits, self._slots)
        histogram[0, -1] += nan_unless_finite(logits)
        return histogram

    def weighted_steps(self, bins: LogitBins, weights: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the positives i of weights[i] * H(s - p_i) for each negative s: (M,) like logits, from (P,).

        Call it after `histogram`. 0 for ignored entries, anything for positives.
        """
        slots, self._slots = self._slots, None
        if slots is None:  # used up by an earlier backward through the same graph
            slots = bins.locate(logits, targets)
        return bins.weighted_steps(weights, logits, slots)


def make_passes(logits: Tensor) -> TorchPasses | TritonPasses:
    """The fastest passes for these logits: kernels where Triton runs on their device, else operators."""
    if triton_support.usable(logits):
        from .triton_passes import TritonPasses

        return TritonPasses()
    return TorchPasses()
