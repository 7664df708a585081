"""CUDA graphs of a network in evaluation: small batches of a shape that comes again are launched as a whole."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from losses.triton_support import agree, passes_trial

MOST_PIXELS = 1_250_000  # of a batch, one image of 800×1344 say; the more there are, the less the host matters
MOST_GRAPHS = 8  # what the head says of 800×1344 pixels is 65 MB for each
LARGEST_ERROR = 1e-2  # relative to the largest output; a graph runs the same kernels


class Captured(NamedTuple):
    """A graph, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    outputs: Any


class ShapeGraphs:
    """Runs a function of images as CUDA graphs, one for each of the first shapes that come twice.

    What a graph returns is overwritten by its next run. The first call with a shape runs the function, and so do all
    calls where graphs fail or once gave other numbers, which one warning says. Weights are read where they lie,
    whatever their values have become; where they lie elsewhere, all graphs are made anew. A copy has none yet.

    Args:
        allowed: False runs the function always.
    """

    def __init__(self, allowed: bool = True) -> None:
        self.allowed = allowed
        self._weights: tuple[int, ...] = ()  # where they lay in the latest call
        self._seen: set[tuple[object, ...]] = set()
        self._captured: dict[tuple[object, ...], Captured] = {}
        # by stream: memory that its graphs share, as they run one after the other, and where they are captured
        self._places: dict[int, tuple[Any, torch.cuda.Stream]] = {}
        self._capturing = threading.Lock()  # threads on one stream share its place, which captures one graph at a time

    def __reduce__(self) -> tuple[type["ShapeGraphs"], tuple[bool]]:
        return ShapeGraphs, (self.allowed,)

    def fit(self, images: Tensor) -> bool:
        """Whether graphs are for such images, (B, 3, H, W)."""
        usable = self.allowed and images.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return usable and images.shape[0] * images.shape[2] * images.shape[3] <= MOST_PIXELS

    def run(self, function: Callable[[Tensor], Any], images: Tensor, network: nn.Module) -> Any:
        """function(images), which reads the parameters of the network."""
        weights = tuple(parameter.data_ptr() for parameter in network.parameters())
        if weights != self._weights:
            self._weights = weights
            self._seen.clear()
            self._captured.clear()
            self._places.clear()  # the weights may be on another device
        key = _key(images)
        if key in self._captured:
            graph, own_images, outputs = self._captured[key]
            own_images.copy_(images)
            graph.replay()
            return outputs
        outputs = function(images)
        if key in self._seen and len(self._captured) < MOST_GRAPHS:
            with self._capturing:
                self._try(key, function, images, outputs)
        self._seen.add(key)
        return outputs

    def _try(self, key: tuple[object, ...], function: Callable[[Tensor], Any], images: Tensor, expected: Any) -> None:
        """Captures a graph, and keeps it if it gives what is expected."""

        def same_outputs() -> bool:
            captured = self._capture(function, images)
            captured.graph.replay()
            self._captured[key] = captured
            pairs = zip(tree_leaves(captured.outputs), tree_leaves(expected), strict=True)
            return all(agree(*pair, LARGEST_ERROR) for pair in pairs if isinstance(pair[0], Tensor))

        if not passes_trial("evaluation runs without CUDA graphs", same_outputs, "they give other numbers here"):
            self.allowed = False
            self._captured.clear()

    def _capture(self, function: Callable[[Tensor], Any], images: Tensor) -> Captured:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(images.device)
        if current.cuda_stream not in self._places:
            self._places[current.cuda_stream] = torch.cuda.graph_pool_handle(), torch.cuda.Stream(images.device)
        pool, stream = self._places[current.cuda_stream]
        # casts of weights that autocast keeps for a while would be gone when the graph runs
        autocast = torch.autocast(
            "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
        )
        with torch.inference_mode(False), torch.no_grad(), autocast:  # memory that may be written in either mode
            own_images = images.clone()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                # other threads go on meanwhile, a loader's among them, and what they do is not captured
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    outputs = function(own_images)
                finally:
                    graph.capture_end()
            current.wait_stream(stream)
        return Captured(graph, own_images, outputs)


def _key(images: Tensor) -> tuple[object, ...]:
    """What a graph depends on, and who may wait for its outputs: a thread, on a stream."""
    autocast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
    stream = torch.cuda.current_stream(images.device).cuda_stream
    return images.shape, images.stride(), images.dtype, autocast, stream, threading.get_ident()
