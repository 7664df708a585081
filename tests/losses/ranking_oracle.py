"""The ranking losses as double sums over all pairs, in float64: slow, plain, and independent of the package."""

from typing import NamedTuple

import torch
from torch import Tensor


class Expected(NamedTuple):
    cls: Tensor
    loc: Tensor
    grad_logits: Tensor
    grad_loc: Tensor
    ap: Tensor
    ap_grad: Tensor


def step(x: Tensor, delta: float) -> Tensor:
    return (x / (2 * delta) + 0.5).clamp(0, 1)


def dense(logits: Tensor, targets: Tensor, loc_errors: Tensor, delta: float) -> Expected:
    logits, errors = logits.detach().double(), loc_errors.detach().double()
    positive, negative = targets == 1, targets == 0
    p, n = logits[positive], logits[negative]
    num = max(1, len(p))
    above = step(n[None, :] - p[:, None], delta)  # (P, N)
    among = step(p[None, :] - p[:, None], delta)  # (P, P)
    among.fill_diagonal_(0)
    false_positives, rank_plus = above.sum(1), 1 + among.sum(1)
    rank = rank_plus + false_positives

    g = (false_positives + among @ errors) / rank
    g[false_positives <= 1e-5] = 0
    share = torch.where(false_positives[:, None] > 0, above / false_positives[:, None], 0)
    hard = (p[None, :] >= p[:, None]).double()
    return Expected(
        cls=(false_positives / rank).sum() / num,
        loc=((hard @ errors) / rank).sum() / num,
        grad_logits=scatter(logits, positive, negative, -g / num, g @ share / num),
        grad_loc=(hard / rank[:, None]).sum(0) / num,
        **average_precision(logits, positive, negative, rank_plus / rank, rank, above),
    )


def average_precision(logits, positive, negative, precision, rank, above) -> dict[str, Tensor]:
    """As published: the gradient of a positive that interpolation lifts is scaled by (1 - m) / (1 - prec)."""
    num = max(1, len(precision))
    order = logits[positive].argsort()
    best = torch.empty_like(precision)
    best[order] = precision[order].cummax(0).values if len(precision) else precision
    lifted = best > precision
    factor = torch.where(lifted, (1 - best) / (1 - precision).clamp_min(1e-300), 1.0)
    pull = (above * (factor / rank)[:, None]).sum(0)
    return {
        "ap": (1 - best).sum() / num,
        "ap_grad": scatter(logits, positive, negative, -(1 - best) / num, pull / num),
    }


def scatter(logits: Tensor, positive: Tensor, negative: Tensor, on_positive: Tensor, on_negative: Tensor) -> Tensor:
    gradient = torch.zeros_like(logits)
    gradient[positive], gradient[negative] = on_positive, on_negative
    return gradient


def assert_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Largest difference, relative to the largest expected magnitude."""
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.detach().double() - expected).abs().max().item()
        allowed = relative * expected.abs().max().item() + 1e-12
        assert error <= allowed, f"off by {error:.3g}, allowed {allowed:.3g}"
