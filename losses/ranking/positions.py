"""Where the positives lie on an axis on which float64 resolves the step, however large their logits are.

H(s_j - s_i) needs differences of the size of delta, which the sums of large logits have lost: 1e20 + 1 is 1e20. But
what lies farther apart than delta only needs its order, so the axis may be folded up between positives far apart.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# In multiples of delta. Logits up to REACH stay as they are: there float64 resolves the step to 2**-32. Beyond it gaps
# are shortened to FAR_APART, of which millions fit on the axis.
REACH = 2.0**20
FAR_APART = 2.0**12


class Placed(NamedTuple):
    """Logits of the positives in two parts, (P,) float64 each.

    positions: on the folded axis: the logits themselves if none is beyond REACH.
    origins: what to subtract, exactly, from a logit and from those near it, for numbers of the size of delta: 0 if no
        logit is beyond REACH.
    """

    positions: Tensor
    origins: Tensor


def place(logits: Tensor, delta: float) -> Placed:
    """Folds the axis, without waiting for a GPU, if any of the logits (P,) float64, P > 0, finite, is beyond REACH."""
    ordered, order = logits.sort()
    gaps = torch.diff(ordered, prepend=ordered[:1]).clamp(max=FAR_APART * delta)
    folded = torch.empty_like(logits).index_copy_(0, order, gaps.cumsum(0))
    far = logits.abs().amax() > REACH * delta
    return Placed(torch.where(far, folded, logits), torch.where(far, logits, 0))
