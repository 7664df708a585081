"""Sums of the smoothed step over the pairs that a second key orders, without comparing pairs."""

import torch
from torch import Tensor


def sum_over_smaller_keys(logits: Tensor, keys: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Sum over the j with keys[j] < keys[i] of weights[j] * H(logits[j] - logits[i]), for each i.

    H is the step smoothed over [-delta, delta]: in the order of the logits, the j behind s_i + delta count fully and
    those between it and s_i - delta linearly. So prefix sums in that order would do, were there no keys. A wavelet
    matrix has them: level by level, from the highest bit of the keys' ranks to the lowest, it separates the entries
    with bit 0 from those with bit 1, in order; a sum over smaller keys collects the first wherever its own bit is 1.
    O(P log P) time in O(log P) steps, O(P) memory.

    Args:
        logits: (P,) float64, finite.
        keys: (P,) float; equal ones are not smaller.
        weights: (n, P) float64, sums of n weightings at once.
        delta: half-width of the smoothed step, > 0.
    Returns:
        (n, P) float64.
    """
    size, num_weightings = len(logits), len(weights)
    if size == 0:
        return torch.zeros_like(weights)
    logits = logits - (logits.min() + logits.max()) / 2  # small numbers, small rounding
    sorted_keys, by_key = keys.sort(stable=True)
    bounds = torch.searchsorted(sorted_keys, keys)  # how many keys are smaller
    sorted_logits, by_logit = logits.sort(stable=True)
    position = torch.arange(size, device=logits.device)
    ranks = torch.empty_like(by_key)
    ranks[by_key] = position
    ranks = ranks[by_logit]
    values = torch.cat([weights, weights * logits])[:, by_logit]
    # Of each i: where the ramp begins, where it ends, and the end of all; first in the order of the logits.
    edges = torch.stack(
        [
            torch.searchsorted(sorted_logits, logits - delta),
            torch.searchsorted(sorted_logits, logits + delta),
            torch.full_like(bounds, size),
        ]
    )
    sums = values.new_zeros(2 * num_weightings, 2, size)  # on the ramp and beyond it
    for level in reversed(range(max(1, (size - 1).bit_length()))):
        ones = (ranks >> level) & 1
        zeros_before = torch.nn.functional.pad((1 - ones).cumsum(0), (1, 0))
        num_zeros = zeros_before[-1]
        order = torch.where(ones == 1, num_zeros + position - zeros_before[:-1], zeros_before[:-1])
        ranks = torch.empty_like(ranks).index_copy_(0, order, ranks)
        values = torch.empty_like(values).index_copy_(1, order, values)
        prefix = torch.nn.functional.pad(values.cumsum(1), (1, 0))
        among_zeros = zeros_before[edges]
        bit = ((bounds >> level) & 1).bool()
        collected = prefix[:, among_zeros].diff(dim=1)
        sums += torch.where(bit, collected, 0)
        edges = torch.where(bit, num_zeros + edges - among_zeros, among_zeros)
    ramp, beyond = sums[:num_weightings].unbind(1)
    ramp_logits = sums[num_weightings:, 0]
    return beyond + (ramp_logits - ramp * (logits - delta)) / (2 * delta)
