"""The losses alone on a GPU: forward and backward against a copy of the logits, which nothing can undercut."""

from collections.abc import Callable
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.loss import SCORES, STEPS, make_batch
from losses import triton_support

NUM_LOGITS, REPETITIONS, WARM_UP = 30_000_000, 20, 3
POSITIVES = (10, 1000, 10_000)
KERNELS, OPERATORS = "Triton", "PyTorch"


def benchmark_loss_cuda() -> list[dict]:
    """Rows of the table, for float32 and for bfloat16 logits.

    "ratio to copy" is to the time of reading every logit and writing as many numbers once.
    """
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for scores in SCORES:
            for num_positives in POSITIVES:
                batch = make_batch(scores, num_positives, NUM_LOGITS)
                logits, targets, loc_errors = (tensor.detach().cuda() for tensor in batch)
                batch = (logits.to(dtype).requires_grad_(), targets, loc_errors.requires_grad_())
                rows += measure(scores, batch, every_loss=num_positives == 1000)
    return rows


def measure(scores: str, batch: tuple[Tensor, Tensor, Tensor], every_loss: bool) -> list[dict]:
    """Rows of one batch: aLRP alone, or every loss."""
    losses = ["torchvision focal", "aLRP", *(["focal", "AP", "Rank & Sort"] if every_loss else [])]
    cases = {("copy", ""): copy_of(batch[0])} | {
        (loss, path): step_of(loss, path, batch)
        for loss in losses
        for path in ([""] if "torchvision" in loss else [KERNELS, OPERATORS])
    }
    times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for repetition in range(WARM_UP + REPETITIONS):
        for case, run in cases.items():
            batch[0].grad = batch[2].grad = None
            elapsed = milliseconds(run)
            if repetition >= WARM_UP:
                times[case].append(elapsed)
    typical = {case: median(values) for case, values in times.items()}
    logits = batch[0]
    rows = []
    for case, run in cases.items():
        rows.append(
            {
                "logits": str(logits.dtype).removeprefix("torch."),
                "scores": scores,
                "positives": len(batch[2]),
                "loss": case[0],
                "by": case[1],
                "ms": typical[case],
                "ratio to copy": typical[case] / typical["copy", ""],
                "ratio": typical[case] / typical["torchvision focal", ""],
                "memory": peak_memory(run, batch),
            }
        )
    return rows


def copy_of(logits: Tensor) -> Callable[[], object]:
    source, target = logits.detach(), torch.empty_like(logits)
    return lambda: target.copy_(source)


def step_of(loss: str, path: str, batch: tuple[Tensor, Tensor, Tensor]) -> Callable[[], object]:
    def run() -> None:
        if path == OPERATORS:
            with patch.object(triton_support, "usable", return_value=False):
                STEPS[loss](*batch)
        else:
            STEPS[loss](*batch)

    return run


def milliseconds(run: Callable[[], object]) -> float:
    """From an idle GPU until it is idle again, so the host's share counts."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def peak_memory(run: Callable[[], object], batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Extra memory of a step, the gradient included, over the memory of the logits."""
    batch[0].grad = batch[2].grad = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / (batch[0].element_size() * len(batch[0]))
