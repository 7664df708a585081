"""CUDA graphs of a network in training: the host launches its forward and backward as a whole, not kernel by kernel."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from detector import Detector
from detector.backbones.norm import running_statistics
from detector.pyramid import PyramidDetector
from engine.run.config import Config
from engine.run.precision import autocast
from engine.training.step_buffers import StepBuffers
from losses.triton_support import passes_trial

MOST_DIFFERENT = 0.1  # relative L2 distance, which garbage exceeds and other roundings in bfloat16 do not
COMPARED = 1 << 24  # numbers at a time: all logits in float32 would be more memory than the training takes


def can_be_captured(detector: Detector, config: Config, device: torch.device) -> bool:
    """Whether graphs are wanted, batches have one size, as a graph has, and no norm talks to other processes."""
    shares_statistics = any(isinstance(module, nn.SyncBatchNorm) for module in detector.modules())
    wanted = config.run.graphs and config.data.short_sides is None and device.type == "cuda"
    return wanted and not shares_statistics and isinstance(detector, PyramidDetector)


def capture_network(detector: Detector, images: Tensor, precision: str, compiled: bool) -> bool:
    """Lets the network run as CUDA graphs in training, on batches of the shape of the given one: backbone and pyramid
    as one, between which no map is copied then, and the head as another.

    Call it before the threads of a loader run: while it captures, none may allocate pinned memory. Other batches, and
    evaluation, run as before. The graphs are first tried against the operators; where they fail or give other numbers,
    one warning says so, and all runs as before. Buffers are then as they were, and must be written in place from here
    on, as graphs of BatchNorm write its statistics where they lie. What graphs give for the gradients of parameters
    lies in memory that their next backward pass overwrites: gradients that add up need memory of their own beforehand.

    Args:
        detector: one that `can_be_captured`, in training mode.
        images: (B, 3, H, W) on its device, of any content.
        precision: `run.precision`.
        compiled: have torch.compile make the kernels; those of other batches and of evaluation too.
    Returns:
        whether graphs run.
    """
    assert isinstance(detector, PyramidDetector)
    parts = (
        _Part(detector, "maps", (detector.backbone, detector.fpn), compiled),
        _Part(detector.head, "forward", (detector.head,), compiled),
    )

    # Noise from a generator of its own: one colour would leave BatchNorm nothing to divide by but rounding.
    noise = images.clone().uniform_(generator=torch.Generator(images.device).manual_seed(0))
    buffers = StepBuffers(detector)
    buffers.keep()

    def same_results() -> bool:
        # without a cache, which would hand casts of weights from one graph to the next
        with autocast(precision, images.device, cache=False):
            inputs = detector.normalised(noise)
            samples, expected = _run_once(parts, inputs)
            functions = tuple(part.of for part in parts)
            _run_by_itself(functions, _places(parts, samples))
            torch.cuda.empty_cache()  # graphs take memory of their own
            # A capture that fails would leave its own stream the current one.
            with torch.cuda.stream(torch.cuda.current_stream(images.device) if images.is_cuda else None):
                # Not its own first runs: they leave what belongs to their stream alive in the capture.
                graphed = torch.cuda.make_graphed_callables(functions, _places(parts, samples), num_warmup_iters=0)
            for part, graph, sample in zip(parts, graphed, samples, strict=True):
                part.run_as(_by_shape(part, graph, sample))
            buffers.restore()
            results = _run_once(parts, inputs)[1]
        return all(_distance(*pair) < MOST_DIFFERENT for pair in zip(results, expected, strict=True))

    works = passes_trial("the network runs without CUDA graphs", same_results, "they give other numbers here")
    buffers.restore()
    if not works:
        for part in parts:
            part.run_as(part.original)
    return works


class _Part(nn.Module):
    """A method of an object, and the networks that it runs one after the other, as a function of their weights.

    Attributes:
        original: the method as it was, or compiled.
        trained: the networks' parameters that train, by their names in this module.
    """

    def __init__(self, owner: nn.Module, method: str, networks: Iterable[nn.Module], compiled: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        # not as attributes, which would make the owner a part of this
        self.run_as: Callable[[Callable[..., Any]], None] = partial(setattr, owner, method)
        self.run: Callable[[Any], Any] = lambda inputs: getattr(owner, method)(inputs)
        original = getattr(owner, method)
        self.original: Callable[..., Any] = torch.compile(original) if compiled else original
        self.trained = {name: each for name, each in self.named_parameters() if each.requires_grad}

    def forward(self, inputs: Any) -> Any:
        return self.original(inputs)

    def of(self, inputs: Any, *weights: Tensor) -> Any:
        """What it gives for tensors in place of its trained parameters."""
        return functional_call(self, dict(zip(self.trained, weights, strict=True)), (inputs,))


def _places(parts: Sequence[_Part], samples: Sequence[Any]) -> tuple[tuple[Any, ...], ...]:
    """For each part its sample, and leaves in the memory of its parameters, with which a graph is captured.

    Autograd adds up the gradient of a leaf on the stream of its first use. That must not be the capture's for a
    parameter, since a graph keeps what its capture used; nor may a capture wait for the stream of the training.
    """
    leaves = ([each.detach().requires_grad_() for each in part.trained.values()] for part in parts)
    return tuple((sample, *of_part) for sample, of_part in zip(samples, leaves, strict=True))


def _run_by_itself(functions: Sequence[Callable[..., Any]], places: Sequence[tuple[Any, ...]]) -> None:
    """Forward and backward of each function, which compiles and allocates what a capture cannot."""
    for function, inputs in zip(functions, places, strict=True):
        outputs = [output for output in tree_leaves(function(*inputs)) if output.requires_grad]
        wanted = [x for x in tree_leaves(inputs) if x.requires_grad]
        torch.autograd.grad(outputs, wanted, [torch.zeros_like(output) for output in outputs])


def _by_shape(part: _Part, graphed: Callable[..., Any], sample: Any) -> Callable[..., Any]:
    """The graph in training on inputs of the sample's shapes, the original on all else."""
    shapes, weights = [x.shape for x in tree_leaves(sample)], tuple(part.trained.values())

    def forward(inputs: Any) -> Any:
        if part.networks[0].training and [x.shape for x in tree_leaves(inputs)] == shapes:
            return graphed(inputs, *weights)
        return part.original(inputs)

    return forward


def _run_once(parts: Sequence[_Part], inputs: Tensor) -> tuple[list[Any], list[list[Tensor]]]:
    """Copies of what each part is given, as graphs keep for their inputs; and what they must give: the outputs of the
    network, the gradients of the parameters for some loss of theirs, and what running statistics, if any, move by."""
    statistics = [each for part in parts for each in running_statistics(part)]
    before = [each.clone() for each in statistics]
    given: list[Any] = []
    values: Any = inputs
    for part in parts:
        given.append(tree_map(lambda x: x.detach().clone().requires_grad_(x.requires_grad), values))
        values = part.run(values)
    outputs = tree_leaves(values)
    # of the logits, which are the largest of all tensors, no copy in float32
    loss = torch.stack([output.mean(dtype=torch.float32) for output in outputs]).sum()
    gradients = list(torch.autograd.grad(loss, [each for part in parts for each in part.trained.values()]))
    moves = [after - each for after, each in zip(statistics, before, strict=True)]
    return given, [[output.detach() for output in outputs], gradients, *([moves] if moves else [])]


def _distance(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """L2 distance of all together, relative to the expected ones."""
    squares = torch.zeros(2, device=values[0].device)
    for pair in zip(values, expected, strict=True):
        for pieces in zip(*(each.flatten().split(COMPARED) for each in pair), strict=True):
            value, wanted = (piece.float() for piece in pieces)
            squares += torch.stack([(value - wanted).square().sum(), wanted.square().sum()])
    return (squares[0] / squares[1]).sqrt().item()
