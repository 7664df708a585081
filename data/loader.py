"""Batches of samples, and the loaders that make them in worker processes."""

import multiprocessing
import multiprocessing.queues
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.augment import Target
from data.coco import CocoDetection
from data.cpus import usable_cpus
from data.images import blank_images
from data.sampler import TrainBatchSampler, eval_batches
from data.targets import BatchTargets
from data.transforms import Resizing

SIZE_DIVISOR = 32  # of both sides of a batch; the detectors' SIZE_DIVISOR
PREFETCH = 4  # batches per worker
TIMEOUT = 60.0  # seconds, after which a loader with workers says that no batch came; it may be asked again
HANDED_NOTHING_OVER = 74  # exit status of a worker whose batch does not fit into shared memory


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) rounded up to multiples of 32."""
    height, width = (-(-side // SIZE_DIVISOR) * SIZE_DIVISOR for side in size)
    return height, width


def collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, BatchTargets]:
    """Joins samples to a batch, and pads images at right and bottom with ImageNet's mean colour.

    Returns:
        images: (B, 3, H, W) of the samples' type, channels last in memory; H and W are the largest height and width,
            rounded up to multiples of 32.
        targets: the B targets, their objects joined.
    """
    images, targets = zip(*samples, strict=True)
    height, width = padded_size((max(i.shape[1] for i in images), max(i.shape[2] for i in images)))
    batch = blank_images(len(images), height, width, images[0].dtype)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    # Objects are joined for two reasons: the device gets few tensors instead of 3 B tiny ones, and a worker hands over
    # each tensor as an open file, of which a process may have only so many.
    return batch, BatchTargets.join(targets)


def train_loader(
    dataset: CocoDetection,
    batch_size: int,
    *,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    start_step: int = 0,
    pinned: bool = False,
) -> DataLoader:
    """Gives endless (images, targets) micro-batches of this process, in the order of TrainBatchSampler.

    Args:
        batch_size: images of a step, over all processes and micro-batches.
        start_step: the first step to give batches of.
        pinned: in memory from which a GPU copies while the host goes on.

    Raises:
        DatasetError: the batch size suits neither the data set nor the number of processes.
    """
    batches = TrainBatchSampler(
        len(dataset),
        batch_size,
        seed=dataset.seed,
        rank=rank,
        world_size=world_size,
        accumulate=accumulate,
        start_step=start_step,
    )
    return _loader(dataset, batches, workers, pinned)


def eval_loader(
    dataset: CocoDetection,
    batch_size: int,
    *,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pinned: bool = False,
) -> DataLoader:
    """Gives (images, targets) of this process's share of the data set: each image exactly once over all processes.

    The data set's transform must be a `Resizing`; `pinned` as of `train_loader`.
    """
    resize = dataset.transform
    assert isinstance(resize, Resizing)
    batches = eval_batches(
        dataset.sizes, batch_size, lambda size: padded_size(resize.output_size(size)), rank, world_size
    )
    return _loader(dataset, batches, workers, pinned)


def worker_count(workers: int) -> int:
    """Number of loader processes for `data.workers`: at most one a CPU, as more would wait for each other."""
    return min(workers, usable_cpus())


def blank_batch(count: int, size: tuple[int, int]) -> tuple[Tensor, BatchTargets]:
    """A batch of `count` images of (height, width) without objects, in the form of a loader's."""
    target: Target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    target |= {"crowd": torch.zeros(0, dtype=torch.bool), "image_id": -1, "orig_size": size, "size": size}
    return collate([(image, dict(target)) for image in blank_images(count, *size)])


def kill_workers() -> None:
    """Ends the loader processes of this process at once, whatever they wait for. It can load nothing after that."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise
    for worker in multiprocessing.active_children():
        worker.kill()


def _loader(
    dataset: CocoDetection, batches: TrainBatchSampler | list[list[int]], workers: int, pinned: bool
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=worker_count(workers),
        timeout=TIMEOUT if workers else 0,
        worker_init_fn=_init_worker,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
        generator=torch.Generator(),  # a start draws from it, and must not change the default one
    )


def _init_worker(worker: int) -> None:
    torch.set_num_threads(1)  # the workers themselves fill the CPUs
    # A batch that cannot be pickled into shared memory is dropped with a traceback, and its reader waits for ever.
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_end_without_a_batch)
    # Ctrl-C and a scheduler's signals reach the whole process group, but an orderly stop is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # SIGTERM comes from schedulers too, but it is also how the parent ends a worker that does not listen.
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # all threads of the worker inherit it
        parent = multiprocessing.parent_process()  # getppid() may name a fork server
        assert parent is not None
        threading.Thread(target=_end_when_the_parent_says_so, args=(parent.pid,), daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_without_a_batch(error: Exception, batch: object) -> None:
    os._exit(HANDED_NOTHING_OVER)


def _end_when_the_parent_says_so(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
