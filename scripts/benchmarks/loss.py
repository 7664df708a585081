"""The losses alone: forward and backward on the CPU against torchvision's focal loss and the published loop."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from benchmarks import memory
from losses import alrp_loss, ap_loss, focal_loss, rs_loss

NUM_LOGITS, THREADS, REPETITIONS, PROCESSES = 3_000_000, 2, 9, 5
# Mean and standard deviation of the negatives' and of the positives' logits.
SCORES = {"initial": ((-4.6, 0.05), (-4.6, 0.05)), "mid-training": ((-6.0, 1.5), (-2.0, 1.5))}


def loop_loss(logits: Tensor, targets: Tensor, loc_errors: Tensor) -> None:
    """aLRP's gradient as published (delta 1): one positive after the other against the relevant negatives."""
    p = logits[targets == 1]
    negatives = logits[(targets == 0) & (logits > p.min() - 1)]
    on_negatives, on_positives = torch.zeros_like(negatives), torch.zeros_like(p)
    for i in range(len(p)):
        above, among = ((others - p[i]).div(2).add(0.5).clamp(0, 1) for others in (negatives, p))
        among[i] = 0
        false_positives = above.sum()
        error = (false_positives + among @ loc_errors) / (1 + among.sum() + false_positives)
        on_positives[i] = -error / len(p)
        on_negatives += above * (error / false_positives.clamp_min(1e-5) / len(p))


def dense_loss(logits: Tensor, targets: Tensor, loc_errors: Tensor) -> None:
    """The same gradient with every positive compared to every negative at once."""
    p, negatives = logits[targets == 1], logits[targets == 0]
    above = (negatives - p[:, None]).div_(2).add_(0.5).clamp_(0, 1)
    among = (p - p[:, None]).div(2).add(0.5).clamp(0, 1).fill_diagonal_(0)
    false_positives = above.sum(1)
    errors = (false_positives + among @ loc_errors) / (1 + among.sum(1) + false_positives)
    (errors / false_positives.clamp_min(1e-5) / len(p)) @ above


STEPS: dict[str, Callable] = {
    "torchvision focal": lambda s, t, e: sigmoid_focal_loss(s, t, reduction="sum").backward(),
    "focal": lambda s, t, e: focal_loss(s, t).backward(),
    "AP": lambda s, t, e: ap_loss(s, t).backward(),
    "aLRP": lambda s, t, e: torch.add(*alrp_loss(s, t, e)).backward(),
    "Rank & Sort": lambda s, t, e: torch.add(*rs_loss(s, t, e.detach())).backward(),
    "aLRP, loop over positives": lambda s, t, e: loop_loss(s.detach(), t, e.detach()),
    "aLRP, P × N comparisons": lambda s, t, e: dense_loss(s.detach(), t, e.detach()),
}


def make_batch(scores: str, num_positives: int, num_logits: int = NUM_LOGITS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    positives = torch.randperm(num_logits, generator=generator)[:num_positives]
    targets = torch.zeros(num_logits).index_fill_(0, positives, 1)
    logits = torch.randn(num_logits, generator=generator)
    on_negatives, on_positives = (logits * std + mean for mean, std in SCORES[scores])
    logits = torch.where(targets == 1, on_positives, on_negatives)
    return logits.requires_grad_(), targets, torch.rand(num_positives, generator=generator).requires_grad_()


def run(loss: str, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Seconds of one step from logits to gradient."""
    batch[0].grad = batch[2].grad = None
    start = time.perf_counter()
    STEPS[loss](*batch)
    return time.perf_counter() - start


def peak_memory(loss: str, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Extra resident memory of a step, the gradient included, over the memory of the logits (Linux only)."""
    batch[0].grad = None
    memory.reset_peak("cpu")
    run(loss, batch)
    high = memory.peak_memory("cpu")
    batch[0].grad = None
    low = memory.reset_peak("cpu")
    return (high - low) * 2**20 / (4 * NUM_LOGITS)


def benchmark_loss() -> list[dict]:
    """Rows of the table: forward and backward of every loss on the CPU, medians over processes.

    How long the allocations of a step take depends on where the process's memory happens to lie, by as much as the
    losses differ; hence several processes, and the range of their ratios.
    """
    context = multiprocessing.get_context("spawn")
    runs = []
    for _ in range(PROCESSES):
        with ProcessPoolExecutor(1, context, torch.set_num_threads, (THREADS,)) as pool:
            runs.append(pool.submit(_measure).result())
    rows = []
    for same_row in zip(*runs, strict=True):
        ratios = [row["ratio"] for row in same_row]
        medians = {name: median(row[name] for row in same_row) for name in ("ms", "ratio")}
        span = f"{min(ratios):.2f}–{max(ratios):.2f}×"
        rows.append(same_row[0] | medians | {"from–to": span, "memory": same_row[0]["memory"]})
    return rows


def _measure() -> list[dict]:
    rows = []
    for scores in SCORES:
        batches = {num: make_batch(scores, num) for num in (10, 1000, 10_000)}
        # P x N numbers of 1000 positives would be 12 GB
        cases = [(loss, 10 if "P ×" in loss else 1000) for loss in STEPS] + [("aLRP", 10), ("aLRP", 10_000)]
        times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
        for repetition in range(REPETITIONS + 1):  # the first one warms up
            for loss, num in cases:
                if "loop" not in loss or repetition == 1:
                    times[loss, num].append(run(loss, batches[num]))
        seconds = {case: median(values[1:] or values) for case, values in times.items()}
        for loss, num in cases:
            ratio = seconds[loss, num] / seconds["torchvision focal", 1000]
            row = {"scores": scores, "loss": loss, "positives": num, "ms": 1e3 * seconds[loss, num], "ratio": ratio}
            measurable = sys.platform == "linux" and "loop" not in loss
            rows.append(row | {"memory": peak_memory(loss, batches[num]) if measurable else None})
    return rows
