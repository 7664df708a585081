"""Counts what a piece of code makes PyTorch do, on any machine, instead of timing it."""

from collections import Counter
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

# Operators that return a number or a size that the host must know, and so wait for a GPU; and lift_fresh, with which
# torch.tensor and new_tensor end, whose numbers would be copied to a GPU, which waits as well. Boolean masks as indices
# count as nonzero, which they are turned into first.
WAITING = (
    *("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
    *("is_nonzero", "equal", "bincount", "repeat_interleave", "lift_fresh"),
)
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


def count_launches(function: Callable[[], object]) -> int:
    """Launches of kernels and graphs on a GPU while the function runs."""
    # without acc_events PyTorch warns that it forgets earlier cycles, of which there are none
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profiler:
        function()
    return sum(event.count for event in profiler.key_averages() if "Launch" in event.key)


class OperationCounter(TorchDispatchMode):
    """Counts the operators that run inside.

    Attributes:
        counts: by name.
        collectives: names of those that talk to other processes, in order.
        sizes: bytes of every tensor that was made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.collectives: list[str] = []
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masked = name in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        self.counts["nonzero" if masked else name] += 1
        if function.namespace == "c10d":
            self.collectives.append(name)
            tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if torch.is_tensor(leaf)]
            assert all(tensor.is_contiguous() for tensor in tensors), "Tensors must be contiguous"  # says NCCL
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_flatten((args, kwargs))[0] if torch.is_tensor(leaf)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_flatten(result)[0]:
            if torch.is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in given:
                self.sizes.append(leaf.untyped_storage().nbytes())
        return result

    @property
    def waits(self) -> Counter[str]:
        """Operators for which the host waits for a GPU."""
        return Counter({name: self.counts[name] for name in WAITING if self.counts[name]})
