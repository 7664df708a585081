"""An axis for the positives on which float64 resolves the step, however large their logits are.

H(s_j - s_i) needs differences of the size of delta, and large logits lose them: 1e20 + 1 is 1e20. But positives farther
apart than delta only need their order, so the axis may be folded up between them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# In multiples of delta. Logits up to REACH stay as they are, because there float64 resolves the step to 2**-32. If one
# is beyond, all gaps are cut to FAR_APART, of which millions fit on the axis.
REACH = 2.0**20
FAR_APART = 2.0**12


class Placed(NamedTuple):
    """Logits of the positives in two parts, (P,) float64 each.

    positions: places on the folded axis; the logits themselves if none is beyond REACH.
    origins: numbers to subtract, exactly, from a positive and from the logits near it, which leaves numbers of the size
        of delta; 0 if no logit is beyond REACH.
    ordered, order: the logits ascending, and their indices (int64) in that order.
    """

    positions: Tensor
    origins: Tensor
    ordered: Tensor
    order: Tensor


def place(logits: Tensor, delta: float) -> Placed:
    """Folds the axis if any of the logits (P,) float64, P > 0, finite, is beyond REACH."""
    # Fold in any case and choose afterwards: an `if` would wait for a GPU.
    ordered, order = logits.sort()
    gaps = torch.diff(ordered, prepend=ordered[:1]).clamp(max=FAR_APART * delta)
    folded = torch.empty_like(logits).index_copy_(0, order, gaps.cumsum(0))
    far = logits.abs().amax() > REACH * delta
    return Placed(torch.where(far, folded, logits), torch.where(far, logits, 0), ordered, order)
