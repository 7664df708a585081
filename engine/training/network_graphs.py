"""CUDA graphs of a network in training: the host launches its forward and backward as a whole, not kernel by kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_leaves, tree_map

from detector import Detector
from detector.backbones.norm import updates_statistics
from detector.pyramid import PyramidDetector
from engine.run.config import Config
from engine.run.precision import autocast
from losses.triton_support import passes_trial

MOST_DIFFERENT = 0.1  # relative L2 distance, which garbage exceeds and other roundings in bfloat16 do not


def can_be_captured(detector: Detector, config: Config, device: torch.device) -> bool:
    """Whether graphs are wanted, batches have one size, as a graph has, and the network writes nothing but its outputs.

    A capture runs the network some more times, which would count in the statistics of BatchNorm.
    """
    counts_batches = any(map(updates_statistics, detector.modules()))
    wanted = config.run.graphs and config.data.short_sides is None and device.type == "cuda"
    return wanted and not counts_batches and isinstance(detector, PyramidDetector)


def capture_network(detector: Detector, images: Tensor, precision: str, compiled: bool) -> bool:
    """Lets backbone, pyramid and head run as CUDA graphs in training, on batches of the shape of the given one.

    Call it before the threads of a loader run: while it captures, none may allocate pinned memory. Other batches, and
    evaluation, run as before. The graphs are first tried against the operators; where they fail or give other numbers,
    one warning says so, and all runs as before. What they give for the gradients of parameters lies in memory that
    their next backward pass overwrites: gradients that add up need memory of their own beforehand.

    Args:
        detector: one that `can_be_captured`, in training mode.
        images: (B, 3, H, W) in 0..1 on its device.
        precision: `run.precision`.
        compiled: have torch.compile make the kernels; those of other batches and of evaluation too.
    Returns:
        whether graphs run.
    """
    assert isinstance(detector, PyramidDetector)
    parts: list[nn.Module] = [detector.backbone, detector.fpn, detector.head]
    originals = [torch.compile(part.forward) if compiled else part.forward for part in parts]
    parameters = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
    # What adds up a gradient works on the stream of its first use, which must not be the capture's; made here, it lives
    # on in the graphs.
    accumulators = [get_gradient_edge(parameter) for parameter in parameters]

    def same_results() -> bool:
        # without a cache, which would hand casts of weights from one graph to the next
        with autocast(precision, images.device, cache=False):
            inputs = detector.normalised(images)
            samples, expected = _run_once(parts, inputs, parameters)
            _replace_forward(parts, originals)
            torch.cuda.make_graphed_callables(tuple(parts), tuple((sample,) for sample in samples))
            graphed = [part.forward for part in parts]
            _replace_forward(parts, [_by_shape(*each) for each in zip(graphed, originals, samples, strict=True)])
            _, results = _run_once(parts, inputs, parameters)
        return all(_distance(*pair) < MOST_DIFFERENT for pair in zip(results, expected, strict=True))

    works = passes_trial("the network runs without CUDA graphs", same_results, "they give other numbers here")
    del accumulators
    if not works:
        _replace_forward(parts, originals)
    return works


def _replace_forward(parts: Sequence[nn.Module], functions: Sequence[Callable[..., Any]]) -> None:
    for part, function in zip(parts, functions, strict=True):
        part.forward = function


def _by_shape(graphed: Callable[..., Any], original: Callable[..., Any], sample: Any) -> Callable[..., Any]:
    """The one on inputs of the sample's shapes, the other on all else."""
    shapes = [x.shape for x in tree_leaves(sample)]

    def forward(inputs: Any) -> Any:
        same = [x.shape for x in tree_leaves(inputs)] == shapes
        return (graphed if same else original)(inputs)

    return forward


def _run_once(
    parts: Sequence[nn.Module], inputs: Tensor, parameters: Sequence[Tensor]
) -> tuple[list[Any], tuple[list[Tensor], list[Tensor]]]:
    """Copies of what each part is given, as graphs keep for their inputs; and what they must give: the outputs of the
    network, and the gradients of the parameters for some loss of theirs."""
    given: list[Any] = []
    values: Any = inputs
    for part in parts:
        given.append(tree_map(lambda x: x.detach().clone().requires_grad_(x.requires_grad), values))
        values = part(values)
    outputs = tree_leaves(values)
    loss = torch.stack([output.float().square().mean() for output in outputs]).sum()
    gradients = torch.autograd.grad(loss, parameters)
    return given, ([output.detach().clone() for output in outputs], [gradient.clone() for gradient in gradients])


def _distance(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """L2 distance of all together, relative to the expected ones."""
    differences = [value.float() - wanted.float() for value, wanted in zip(values, expected, strict=True)]
    total = torch.nn.utils.get_total_norm
    return (total(differences) / total([wanted.float() for wanted in expected])).item()
