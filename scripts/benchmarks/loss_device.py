"""The losses alone on a GPU: forward and backward, against torchvision's focal loss and a copy of the logits.

Every repetition takes another batch, of another number of positives, as training does: nothing that depends on the
shapes of the step before helps. Times are from an idle device until it is idle again, so the host's share counts; of
our kernels the device's own share stands beside it, "busy ms".
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchvision.ops import sigmoid_focal_loss

from benchmarks.device_events import busy_milliseconds, device_events
from benchmarks.loss import SCORES
from benchmarks.loss_batches import Batch, drawn_batches, network_batches
from losses import alrp_loss, ap_loss, focal_loss, rs_loss, triton_support

NUM_LOGITS, ROUNDS, WARM_UP = 30_000_000, 6, 1  # a round is every batch once
POSITIVES = (10, 1000, 10_000)
EVERY_LOSS = 1000  # positives of the cases that all losses take
KERNELS, OPERATORS = "Triton", "PyTorch"
Step = Callable[[Tensor, Batch, Tensor], object]
STEPS: dict[str, Step] = {
    "aLRP": lambda s, batch, e: torch.add(*alrp_loss(s, batch.targets, e, entries=batch.entries)).backward(),
    "AP": lambda s, batch, e: ap_loss(s, batch.targets, entries=batch.entries).backward(),
    "Rank & Sort": lambda s, batch, e: torch.add(
        *rs_loss(s, batch.targets, e.detach().clamp(max=1), entries=batch.entries)
    ).backward(),
    "focal": lambda s, batch, e: focal_loss(s, batch.targets).backward(),
}


def benchmark_loss_device(device: torch.device, num_logits: int, folder: Path, steps: int, small: bool) -> list[dict]:
    """Rows of the table, for float32 and for bfloat16 logits.

    "ratio to copy" is to the time of reading every logit and writing as many numbers once.

    Args:
        num_logits: of the drawn batches.
        folder, steps, small: of `network_batches`.
    """
    rows = []
    for scores in SCORES:
        for num_positives in POSITIVES:
            batches = drawn_batches(scores, min(num_positives, num_logits // 8), num_logits, device)
            rows += _rows(scores, str(num_positives), batches, every_loss=num_positives == EVERY_LOSS)
    for scores, batches in network_batches(folder, device, steps, small).items():
        rows += _rows(scores, "/".join(str(len(batch.entries)) for batch in batches), batches, every_loss=True)
    return rows


def _rows(scores: str, positives: str, batches: list[Batch], every_loss: bool) -> list[dict]:
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        case = {"logits": str(dtype).removeprefix("torch."), "scores": scores, "positives": positives}
        rows += [case | row for row in measure([batch.in_type(dtype) for batch in batches], every_loss)]
    return rows


def measure(batches: list[Batch], every_loss: bool) -> list[dict]:
    """Rows of batches of one kind: aLRP alone, or every loss."""
    cases: dict[tuple[str, str], Callable[[Batch], object]] = {
        ("copy", ""): lambda batch: batch.logits.clone(),
        ("torchvision focal", ""): peer_step(batches),
    }
    cases |= {(loss, KERNELS): step_of(loss, KERNELS) for loss in (STEPS if every_loss else ["aLRP"])}
    cases["aLRP", OPERATORS] = step_of("aLRP", OPERATORS)
    times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for number in range(WARM_UP + ROUNDS):
        for batch in batches:
            for case, run in cases.items():
                elapsed = milliseconds(partial(run, batch), batch.logits.device)
                if number >= WARM_UP:
                    times[case].append(elapsed)
    typical = {case: median(values) for case, values in times.items()}
    return [
        {
            "loss": case[0],
            "by": case[1],
            "ms": typical[case],
            "ratio to copy": typical[case] / typical["copy", ""],
            "ratio": typical[case] / typical["torchvision focal", ""],
            "memory": peak_memory(partial(run, batches[0]), batches[0].logits),
        }
        | device_work(run, batches if case[1] == KERNELS else [])
        for case, run in cases.items()
    ]


def peer_step(batches: list[Batch]) -> Callable[[Batch], object]:
    """Forward and backward of torchvision's focal loss, whose targets are of the logits' type and made beforehand."""
    targets = {id(batch): (batch.targets == 1).to(batch.logits.dtype) for batch in batches}

    def run(batch: Batch) -> None:
        logits = batch.logits.detach().requires_grad_()
        sigmoid_focal_loss(logits, targets[id(batch)], reduction="sum").backward()

    return run


def step_of(loss: str, path: str) -> Callable[[Batch], object]:
    """Forward and backward of a loss on leaves of its own, so that every batch starts without a gradient."""

    def run(batch: Batch) -> None:
        logits, errors = batch.logits.detach().requires_grad_(), batch.loc_errors.detach().requires_grad_()
        if path == OPERATORS:
            with patch.object(triton_support, "usable", return_value=False):
                STEPS[loss](logits, batch, errors)
        else:
            STEPS[loss](logits, batch, errors)

    return run


def milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """From an idle device until it is idle again."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return 1e3 * (time.perf_counter() - start)


def peak_memory(run: Callable[[], object], logits: Tensor) -> float | None:
    """Extra memory of a step, the gradient included, over the memory of the logits; None where it is not counted."""
    if logits.device.type != "cuda":
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / (logits.element_size() * len(logits))


def device_work(run: Callable[[Batch], object], batches: list[Batch]) -> dict[str, float | None]:
    """Kernels, copies and fills of a step in the mean over the batches: how long they take the device, and how many.

    None without batches, and on a CPU.
    """
    if not batches or batches[0].logits.device.type != "cuda":
        return {"busy ms": None, "launches": None}
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        for batch in batches:
            run(batch)
        torch.cuda.synchronize()
    events = device_events(profiler.key_averages())
    launches = sum(event.count for event in events)
    return {"busy ms": busy_milliseconds(events) / len(batches), "launches": launches / len(batches)}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
