"""Sums of the smoothed step over those of smaller key, without comparing pairs; Rank & Sort Loss sorts by them."""

import torch
from torch import Tensor


def sum_over_smaller_keys(logits: Tensor, keys: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Sum over the j with keys[j] < keys[i] of weights[j] * H(logits[j] - logits[i]), for each i.

    H is the step smoothed over [-delta, delta]. In the order of the logits, the j behind s_i + delta count fully and
    those between s_i - delta and s_i + delta linearly, so without keys two prefix sums in that order would do. With
    keys, a wavelet matrix keeps the order while it splits by key. It goes from the highest bit of the keys' ranks to
    the lowest, and moves the entries with bit 0 before those with bit 1. Where the number of keys below keys[i] has bit
    1, the entries with bit 0 that agree with it in the higher bits have smaller keys: their prefix sums are collected,
    and i goes on among the ones. O(P log P) time in O(log P) steps, O(P) memory.

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
    # From here on columns are in the order of the logits; a key is replaced by its rank, whose bits are few.
    position = torch.arange(size, device=logits.device)
    ranks = torch.empty_like(by_key)
    ranks[by_key] = position
    ranks = ranks[by_logit]
    values = torch.cat([weights, weights * logits])[:, by_logit]
    # For each i, the columns where its ramp begins, where it ends, and where all end.
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
        # Stable split: zeros keep their order in front, ones keep theirs behind.
        zeros_before = torch.nn.functional.pad((1 - ones).cumsum(0), (1, 0))
        num_zeros = zeros_before[-1]
        order = torch.where(ones == 1, num_zeros + position - zeros_before[:-1], zeros_before[:-1])
        ranks = torch.empty_like(ranks).index_copy_(0, order, ranks)
        values = torch.empty_like(values).index_copy_(1, order, values)
        prefix = torch.nn.functional.pad(values.cumsum(1), (1, 0))
        among_zeros = zeros_before[edges]
        # The bound of i has bit 1: all zeros have smaller keys. Take them, and go on among the ones; else among zeros.
        bit = ((bounds >> level) & 1).bool()
        collected = prefix[:, among_zeros].diff(dim=1)
        sums += torch.where(bit, collected, 0)
        edges = torch.where(bit, num_zeros + edges - among_zeros, among_zeros)
    # On the ramp H(s_j - s_i) is (s_j - s_i + delta) / (2 delta), linear in the two sums.
    ramp, beyond = sums[:num_weightings].unbind(1)
    ramp_logits = sums[num_weightings:, 0]
    return beyond + (ramp_logits - ramp * (logits - delta)) / (2 * delta)
