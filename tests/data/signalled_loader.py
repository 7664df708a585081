"""What test_loader.py runs in a process of its own, as a fork of pytest's has the threads and signals of other tests.

Signals to the one worker of a loader. Prints JSON: threads, the worker's number of threads; heard, whether it still
gave an item after those of a scheduler; exit_code, after its parent has ended it.
"""

import json
import os
import signal
import sys

import torch
from torch.utils.data import DataLoader, Dataset

from data import CocoDetection, train_loader, train_transform


class Signals(Dataset):
    """(pid, number of threads) of the worker; items 1 and 2 wait for SIGUSR2 first, which does not come in vain."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[int, int]:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        if index > 0:
            signal.sigwait([signal.SIGUSR2])
        return os.getpid(), torch.get_num_threads()


def main(root: str) -> None:
    dataset = CocoDetection(root, "train", transform=train_transform("flip", (32, 32)))
    init_worker = train_loader(dataset, 1, workers=1).worker_init_fn
    batches = iter(DataLoader(Signals(), batch_size=None, num_workers=1, worker_init_fn=init_worker))
    pid, threads = next(batches)
    for name in ("TERM", "INT", "USR1", "USR2"):
        os.spawnlp(os.P_WAIT, "kill", "kill", f"-{name}", str(pid))  # from somebody else than the parent
    heard = next(batches)[0] == pid
    (worker,) = batches._workers
    worker.terminate()
    worker.join(20)
    print(json.dumps({"threads": threads, "heard": heard, "exit_code": worker.exitcode}))


if __name__ == "__main__":
    main(sys.argv[1])
