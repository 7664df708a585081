"""What stands in for `torch.cuda.make_graphed_callables` on a CPU: as it works, and as it may fail."""

from collections.abc import Callable

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from detector.backbones.norm import running_statistics


class GraphsOnACpu:
    """`torch.cuda.make_graphed_callables` as far as a training sees it: every pass reads and writes the same memory.

    `passes` is how often the last function ran, which is the head's.
    """

    def __call__(
        self, functions: tuple[Callable, ...], samples: tuple[tuple, ...], num_warmup_iters: int
    ) -> tuple[Callable, ...]:
        self.passes = 0
        *graphed, head = map(_in_fixed_memory, functions, samples)
        return *graphed, lambda *inputs: self._count() or head(*inputs)

    def _count(self) -> None:
        self.passes += 1


def _in_fixed_memory(original: Callable, sample: tuple) -> Callable:
    places, live = tree_leaves(sample), {}

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            for place, x in zip(places, inputs, strict=True):
                if place.data_ptr() != x.data_ptr():  # weights lie where they lay in the capture
                    place.detach().copy_(x)
            with torch.enable_grad():
                live["outputs"], live["layout"] = tree_flatten(original(*sample))
            return _written("results", live["outputs"])

        @staticmethod
        def backward(ctx, *gradients):
            needed = [x for x in places if x.requires_grad]
            found = iter(_written("gradients", torch.autograd.grad(live["outputs"], needed, gradients)))
            return tuple(next(found) if x.requires_grad else None for x in places)

    def _written(name, values):
        memory = live.setdefault(name, [value.detach().clone() for value in values])
        for place, value in zip(memory, values, strict=True):
            place.copy_(value.detach())
        return tuple(place.detach() for place in memory)

    return lambda *inputs: tree_unflatten(Graphed.apply(*tree_leaves(inputs)), live["layout"])


def no_graphs(functions, samples, num_warmup_iters):
    raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def graphs_of_zeros(functions, samples, num_warmup_iters):
    def zeros(function):
        return lambda *inputs: tree_map(lambda output: 0 * output, function(*inputs))

    return tuple(map(zeros, functions))


def graphs_that_write_no_statistics(functions, samples, num_warmup_iters):
    def frozen(function):
        def run(*inputs):
            statistics = running_statistics(function.__self__)
            kept = [each.clone() for each in statistics]
            outputs = function(*inputs)
            for each, before in zip(statistics, kept, strict=True):
                each.data.copy_(before)  # unseen by autograd, which keeps them for backward
            return outputs

        return run

    return tuple(map(frozen, functions))
