"""What a training step asks of the device: time, launches, waits, and the kernels that take longest."""

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.device_events import busy_milliseconds, device_events
from benchmarks.models import make_batch, make_models
from benchmarks.train import make_step, speed_up

WARM_UP, STEPS, LONGEST = 3, 5, 25
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def profile_step(size: tuple[int, int], batch_size: int, device: torch.device, compiled: bool) -> dict[str, list[dict]]:
    """Tables of our step with aLRP in bfloat16: numbers of a step, and its longest kernels (on a CPU, operators)."""
    images, targets = make_batch(batch_size, size, device)
    images = images.contiguous(memory_format=torch.channels_last)
    _, own = make_models(size, "alrp", device)
    step = make_step(own.train(), (images, targets), fused=True)
    start = time.perf_counter()
    speed_up(own, images, "bfloat16", compiled)
    step("bfloat16")
    _finish(device)
    first = time.perf_counter() - start
    wall = _milliseconds(lambda: step("bfloat16"), device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities, acc_events=True) as profiler:  # without, PyTorch warns of cycles: there is one
        for _ in range(STEPS):
            step("bfloat16")
        _finish(device)
    averages = profiler.key_averages()
    kernels = device_events(averages)
    counts = {event.key: event.count / STEPS for event in averages}
    row = {
        "first step, s": first,
        "wall ms": wall,
        "busy ms": busy_milliseconds(kernels) / STEPS,
        "launches": sum(counts.get(name, 0) for name in LAUNCHES),
        "waits": sum(counts.get(name, 0) for name in WAITS),
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    }
    microseconds = (
        (lambda event: event.self_device_time_total) if kernels else (lambda event: event.self_cpu_time_total)
    )
    longest = sorted(kernels or averages, key=microseconds, reverse=True)[:LONGEST]
    rows = [
        {
            "ms": microseconds(event) / STEPS / 1e3,
            "times": event.count / STEPS,
            "kernel": event.key[:100].replace("|", "/"),
        }
        for event in longest
    ]
    return {"A training step": [row], "The longest": rows}


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    for _ in range(WARM_UP):
        run()
    _finish(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        run()
    _finish(device)
    return 1e3 * (time.perf_counter() - start) / STEPS


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
