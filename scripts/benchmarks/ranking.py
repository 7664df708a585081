"""The speed claim: exact ranking against the published loop, P × N and Bucketed losses, each in its own process."""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.loss import make_batch
from benchmarks.memory import peak_memory, reset_peak
from benchmarks.pairs import pairs_gradient
from losses import alrp_loss, ap_loss, rs_loss

POSITIVES, LOGITS = (10, 100, 1000, 10_000), (3_000_000, 30_000_000)
LOSSES, DELTAS = ("aLRP", "AP", "Rank & Sort"), (0.5, 1.0)
LIMIT = 300.0  # seconds of a step
START = 90.0  # seconds more for the process and its batch
SHORT, REPETITIONS = 3.0, 5  # a step of fewer seconds is repeated
LONG = 60.0  # a step of more seconds is not taken again at the other delta
REFERENCE_PAIRS = 1_000_000_000  # compared by the reference at most
MEMORY_OF_PAIRS = 3 * 4  # bytes: float32, and what the operators keep beside it

Batch = tuple[Tensor, Tensor, Tensor]
UNKNOWN: dict[str, float | str] = {"ms": "", "MiB": "", **{f"difference at δ {delta}": "" for delta in DELTAS}}


def exact_gradient(loss: str, logits: Tensor, targets: Tensor, values: Tensor, delta: float) -> Tensor:
    """Of this project's functions."""
    logits = logits.detach().requires_grad_()
    if loss == "aLRP":
        alrp_loss(logits, targets, values, delta)[0].backward()
    elif loss == "AP":
        ap_loss(logits, targets, delta).backward()
    else:
        torch.add(*rs_loss(logits, targets, 1 - values, delta)).backward()
    assert logits.grad is not None
    return logits.grad


LOOP = "loop over positives"
METHODS: dict[str, Callable[..., Tensor]] = {
    "exact": exact_gradient,
    "Bucketed": lambda loss, s, t, e, delta: pairs_gradient(loss, s, t, e, delta, len(e), bucketed=True),
    LOOP: lambda loss, s, t, e, delta: pairs_gradient(loss, s, t, e, delta, 1),
    "P × N": lambda loss, s, t, e, delta: pairs_gradient(loss, s, t, e, delta, len(e)),
}


def benchmark_ranking(device: str) -> list[dict[str, Any]]:
    """Rows of the table, logits as in mid-training.

    "difference" is the gradient's largest, relative to the largest entry of the reference, which is in float64: by
    pairs, or by the exact ranking where there are too many of them ("reference").
    """
    torch.set_num_threads(1)
    rows = []
    for num_logits in LOGITS:
        slow = set()  # losses whose loop would take ten times as long as the limit allows, or took longer
        for num_positives in POSITIVES:
            for loss in LOSSES:
                with TemporaryDirectory() as folder:
                    by = write_references(Path(folder), loss, num_positives, num_logits)
                    for method in METHODS:
                        if method == LOOP and loss in slow:
                            cell = UNKNOWN | {"ms": f"over {LIMIT:.0f} s, from a tenth of the positives"}
                        else:
                            cell = run_cell(loss, method, num_positives, num_logits, device, folder)
                            if method == LOOP and (isinstance(cell["ms"], str) or cell["ms"] > 1e3 * LIMIT / 10):
                                slow.add(loss)
                        size = {"logits": num_logits, "positives": num_positives}
                        rows.append({"loss": loss, **size, "by": method, **cell, "reference": by})
    return rows


def write_references(folder: Path, loss: str, num_positives: int, num_logits: int) -> str:
    """Gradients in float64 at both deltas into files; which method gave them."""
    logits, targets, values = (tensor.detach() for tensor in make_batch("mid-training", num_positives, num_logits))
    logits, values = logits.double(), values.double()
    compared = num_positives * int((logits > logits[targets == 1].min() - max(DELTAS)).sum())
    by_pairs = compared <= REFERENCE_PAIRS
    for delta in DELTAS:
        if by_pairs:
            rows = max(1, 50_000_000 // num_logits)
            gradient = pairs_gradient(loss, logits, targets, values, delta, rows)
        else:
            gradient = exact_gradient(loss, logits, targets, values, delta)
        torch.save(gradient, folder / f"{delta}.pt")
    return "pairs" if by_pairs else "exact"


def run_cell(
    loss: str, method: str, num_positives: int, num_logits: int, device: str, folder: str
) -> dict[str, float | str]:
    """Milliseconds, MiB, and differences of one method; words where a limit ends it."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    arguments = (sender, loss, method, num_positives, num_logits, device, folder)
    process = multiprocessing.get_context("spawn").Process(target=measure, args=arguments)
    process.start()
    sender.close()
    cell = dict(UNKNOWN)
    try:
        for _ in range(2):
            if not receiver.poll(START + LIMIT):
                cell |= {key: f"over {LIMIT:.0f} s" for key, value in cell.items() if value == ""}
                break
            cell |= receiver.recv()
    except EOFError:  # the system, or its own allocator, ended it
        cell |= {key: "memory" for key, value in cell.items() if value == ""}
    finally:
        process.kill()
        process.join()
    return cell


def measure(
    results: Connection, loss: str, method: str, num_positives: int, num_logits: int, device: str, folder: str
) -> None:
    """Sends time and memory of a step at δ 1, then the differences; in a process of its own."""
    torch.set_num_threads(1)  # ratios of up to minutes, which other work disturbs less than two threads
    batch = make_batch("mid-training", num_positives, num_logits)
    logits, targets, values = (tensor.detach().to(device) for tensor in batch)
    compared = num_positives * int((logits > logits[targets == 1].min() - 1).sum())
    if method == "P × N" and MEMORY_OF_PAIRS * compared > free_memory(device):
        return
    run = METHODS[method]
    gradients: dict[float, Tensor] = {}

    def step(delta: float = 1.0) -> None:
        gradients[delta] = run(loss, logits, targets, values, delta)

    seconds, mebibytes = timed(step, device)
    if seconds > LIMIT:
        results.send({"ms": f"over {LIMIT:.0f} s"})
    else:
        results.send({"ms": 1e3 * seconds, "MiB": mebibytes})
    if seconds < LONG:
        step(0.5)
    differences = {}
    for delta in gradients:
        reference = torch.load(Path(folder) / f"{delta}.pt")
        error = (gradients[delta].cpu().double() - reference).abs().max() / reference.abs().max()
        differences[f"difference at δ {delta}"] = f"{error.item():.1e}"
    results.send({f"difference at δ {delta}": "-" for delta in DELTAS} | differences)


def timed(step: Callable[[], None], device: str) -> tuple[float, float]:
    """Seconds and peak MiB, the gradient included, beyond what is there before."""
    low = reset_peak(device)
    seconds = [_seconds(step, device)]
    high = peak_memory(device)
    if seconds[0] < SHORT:
        seconds = [_seconds(step, device) for _ in range(REPETITIONS)]
    return median(seconds), high - low


def free_memory(device: str) -> int:
    """Bytes."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def _seconds(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
