"""What a ranking asks of all M entries, in three passes over them: the positives, the histogram, the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .. import triton_support
from ..finite import nan_unless_finite
from .logit_bins import LogitBins, true_indices

if TYPE_CHECKING:
    from .triton_passes import TritonPasses


class TorchPasses:
    """The passes as PyTorch's operators, on any device; `TritonPasses` are the same as kernels.

    One object serves one ranking: a pass may keep for the next what it found.
    """

    def __init__(self) -> None:
        self._slots: Tensor | None = None

    def find_entries(self, targets: Tensor, known: Tensor | None = None) -> Tensor:
        """Indices (P,) int64 of the targets (M,) that are 1, in order: `known`, or found, which waits for a GPU."""
        return true_indices(targets == 1) if known is None else known

    def histogram(self, bins: LogitBins, logits: Tensor, targets: Tensor) -> Tensor:
        """Number of the negatives in each bin but bin 0, where they do not count, and the sum of their logits.

        (2, 2P + 1) float64, contiguous, the sums relative to the bins' origins.
        The number in the last bin is NaN if any logit is not finite.
        """
        self._slots = bins.locate(logits, targets)
        histogram = bins.histogram(logits, self._slots)
        histogram[0, -1] += nan_unless_finite(logits)
        return histogram

    def weighted_steps(self, bins: LogitBins, weights: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over the positives i of weights[i] * H(s - p_i) for each negative s: (M,) like logits, from (P,).

        To be called after `histogram`. 0 for ignored entries, anything for positives.
        """
        slots, self._slots = self._slots, None
        if slots is None:  # used up by an earlier backward through the same graph
            slots = bins.locate(logits, targets)
        return bins.weighted_steps(weights, logits, slots)


def make_passes(logits: Tensor) -> TorchPasses | TritonPasses:
    """The fastest passes there are for the logits."""
    if triton_support.usable(logits):
        from .triton_passes import TritonPasses

        return TritonPasses()
    return TorchPasses()
