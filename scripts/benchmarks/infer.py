"""Inference with post-processing: padded images to detections, torchvision's RetinaNet against ours."""

import copy
import gc
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.image_list import ImageList

from benchmarks.models import make_models
from benchmarks.same_detections import Found, find_in_true_float32, share_of_same
from benchmarks.timing import interleave
from data.loader import padded_size
from data.transforms import ResizeShortSide
from detector import Detector
from detector.backbones.winograd import use_winograd
from detector.contract import IMAGENET_MEAN, IMAGENET_STD
from detector.pyramid import DenseDetector
from detector.released import COCO_IDS
from detector.shape_graphs import ShapeGraphs
from engine.run.precision import autocast

PASSES = 3  # beyond the first
# height and width, and how many of 100 images of COCO's val2017 are of about that size; of a sample of 80
COCO_SHAPES = {
    (480, 640): 33,
    (427, 640): 31,
    (640, 480): 14,
    (375, 500): 8,
    (640, 427): 7,
    (333, 500): 4,
    (512, 640): 3,
}
WARM_UP_SIZE = (96, 64)  # no shape of COCO: kernels are compiled, but no graph is made for those that follow
COMPARED_IMAGES = 40  # at most, on a GPU


class Batch(NamedTuple):
    """Images (B, 3, H, W) in 0..1, padded to multiples of 32, and the (height, width) of each."""

    images: Tensor
    sizes: list[tuple[int, int]]


class PaddedInput(nn.Module):
    """What torchvision's model does to images before its network, for batches that are padded already."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.mean, self.std = (
            torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images: Tensor, targets: None) -> tuple[ImageList, None]:
        return ImageList((images - self.mean) / self.std, self.sizes), targets

    def postprocess(self, found: Found, sizes: object, original_sizes: object) -> Found:
        return found


def benchmark_infer(
    size: tuple[int, int], batch_size: int, num_images: int, device: torch.device, eager: bool
) -> list[dict]:
    """Rows of the table, in float32 and in bfloat16 autocast.

    Times are those of PyTorch's defaults, which on a GPU are TF32 in float32's convolutions: two networks then round
    differently, and scores and boxes part by more than any fault of theirs. What is "the same" is therefore compared in
    true float32 there, in passes of their own over the first images with fresh copies of both models, without the
    compiled one, whose compilation would start anew; on a CPU, where float32 is what it says, in the passes that are
    timed.

    Args:
        size: (height, width) of the images; with `num_images` limits of their short and their long side.
        num_images: of the shapes of COCO's val2017, all in turn; 0 for one batch of the size.
        eager: leave out the compiled network.
    """
    sizes = coco_sizes(num_images, *size) if num_images else [size] * batch_size
    batches = [make_batch(sizes[start : start + batch_size], device) for start in range(0, len(sizes), batch_size)]
    rows = []
    for precision in ("float32", "bfloat16"):
        peer, own = make_models(size, "focal", device)
        silence_unused_columns(peer)
        peer.transform = PaddedInput(device)
        cases = make_cases(peer.eval(), own.eval(), precision)
        # copied before they have run, for what they keep of a run belongs to its mode
        copies = (copy.deepcopy(peer), copy.deepcopy(own)) if device.type == "cuda" else None
        if device.type == "cpu" and precision == "float32":
            fast = copy.deepcopy(own)
            use_winograd(fast, training=False, evaluation=True)
            cases["ours, evaluation.winograd"] = partial(detect, fast, precision)
        if not eager:
            compiled = copy.deepcopy(own)
            compiled.compile_network()
            cases["ours, compiled"] = partial(detect, compiled, precision)
        measured = measure(cases, batches)
        graphs = {"ours": memory_of_graphs(own)} if device.type == "cuda" else {}
        same: dict[str, float | None] = {}
        if precision == "float32":  # random weights give scores that lie closer together than the digits of bfloat16
            found = {name: case.found for name, case in measured.items()}
            if copies is not None:
                found = find_in_true_float32(make_cases(*copies, precision), first_images(batches))
            same = shares_of_same(found)
        rows += table(precision, measured, sum(len(batch.sizes) for batch in batches), same, graphs)
    return rows


def make_cases(peer: RetinaNet, own: Detector, precision: str) -> dict[str, Callable[[Batch], Found]]:
    """Both detectors as functions of a batch."""
    return {"torchvision": partial(detect_peer, peer, precision), "ours": partial(detect, own, precision)}


def first_images(batches: Sequence[Batch]) -> Sequence[Batch]:
    """The first batch, and those after it as long as there are `COMPARED_IMAGES` at most."""
    ends = accumulate(len(batch.sizes) for batch in batches)
    return batches[: max(1, sum(end <= COMPARED_IMAGES for end in ends))]


class Measured(NamedTuple):
    """Seconds of all batches, in the first pass and in the median of the later ones; and what the last pass found."""

    first: float
    later: float
    found: Found


def measure(cases: dict[str, Callable[[Batch], Found]], batches: Sequence[Batch]) -> dict[str, Measured]:
    """All batches by each case in turn, pass by pass; before that a batch of another shape."""
    found: dict[str, Found] = {}

    def detect_all(name: str) -> None:
        found[name] = [each for batch in batches for each in cases[name](batch)]

    warm_up = make_batch([WARM_UP_SIZE], batches[0].images.device)
    for run in cases.values():
        run(warm_up)
    passes = {name: partial(detect_all, name) for name in cases}
    first, later = (interleave(passes, repetitions, warm_up=0) for repetitions in (1, PASSES))
    return {name: Measured(first[name], later[name], found[name]) for name in cases}


def shares_of_same(found: dict[str, Found]) -> dict[str, float | None]:
    """Shares of torchvision's detections that each case has too."""
    found = found | {"torchvision": with_own_labels(found["torchvision"])}
    return {name: share_of_same(found["torchvision"], each) for name, each in found.items()}


def with_own_labels(peer: Found) -> Found:
    """torchvision's labels are COCO's ids, ours their places in the list of ids."""
    ids = torch.tensor(COCO_IDS, device=peer[0]["labels"].device)
    return [each | {"labels": torch.searchsorted(ids, each["labels"])} for each in peer]


def table(
    precision: str,
    measured: dict[str, Measured],
    num_images: int,
    same: dict[str, float | None],
    graphs: dict[str, float],
) -> list[dict]:
    """Rows: times of an image and their ratios to torchvision's, with the first use of each shape and without."""
    peer = measured["torchvision"]
    return [
        {
            "precision": precision,
            "model": name,
            "ms per image": 1e3 * case.later / num_images,
            "ratio": case.later / peer.later,
            "ms with first use": 1e3 * case.first / num_images,
            "ratio with first use": case.first / peer.first,
            "detections per image": sum(len(each["scores"]) for each in case.found) / num_images,
            "same": same.get(name),
            "GiB of graphs": graphs.get(name),
        }
        for name, case in measured.items()
    ]


def coco_sizes(num_images: int, short_side: int, long_side: int) -> list[tuple[int, int]]:
    """Sizes of images of COCO's val2017 after evaluation's resizing, mixed by a fixed seed."""
    drawn = [shape for shape, count in COCO_SHAPES.items() for _ in range(count)]
    order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0)).tolist()
    resize = ResizeShortSide(short_side, long_side)
    return [resize.output_size(drawn[order[index % len(drawn)]]) for index in range(num_images)]


def make_batch(sizes: Sequence[tuple[int, int]], device: torch.device) -> Batch:
    """Noise of these sizes."""
    height, width = padded_size((max(h for h, _ in sizes), max(w for _, w in sizes)))
    images = torch.zeros(len(sizes), 3, height, width)
    generator = torch.Generator().manual_seed(1)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = torch.rand(3, h, w, generator=generator)
    return Batch(images.to(device), list(sizes))


def silence_unused_columns(peer: RetinaNet) -> None:
    """torchvision has columns for ids that COCO does not use; ours has not, so nothing may be detected there."""
    head = peer.head.classification_head
    bias = head.cls_logits.bias.data.view(-1, head.num_classes)
    unused = torch.ones(head.num_classes, dtype=torch.bool)
    unused[COCO_IDS] = False
    bias[:, unused] = -100.0


@torch.inference_mode()
def detect(model: Detector, precision: str, batch: Batch) -> Found:
    images = batch.images.contiguous(memory_format=torch.channels_last)
    with autocast(precision, images.device):
        return model(images, image_sizes=batch.sizes)


@torch.inference_mode()
def detect_peer(model: RetinaNet, precision: str, batch: Batch) -> Found:
    model.transform.sizes = batch.sizes
    with autocast(precision, batch.images.device):
        return model(batch.images)


def memory_of_graphs(detector: Detector) -> float:
    """GiB that go with the graphs of a detector, which has none afterwards."""
    assert isinstance(detector, DenseDetector)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    detector.graphs = ShapeGraphs()
    gc.collect()
    torch.cuda.empty_cache()
    return (before - torch.cuda.memory_reserved()) / 2**30
