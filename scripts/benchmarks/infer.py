"""Inference with post-processing: images to detections, torchvision's RetinaNet against ours."""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.models import make_batch, make_models
from benchmarks.timing import interleave
from detector.backbones.winograd import use_winograd

REPETITIONS = 9


def benchmark_infer(size: tuple[int, int], batch_size: int, device: torch.device, eager: bool) -> list[dict]:
    """Rows of the table, in float32; both models get the images padded to multiples of 32 alike.

    Args:
        eager: leave out the compiled network.
    """
    peer, own = make_models(size, "focal", device)
    peer.eval()
    own.eval()
    height, width = size
    images, _ = make_batch(batch_size, size, device)
    padded = images.new_zeros(batch_size, 3, -(-height // 32) * 32, -(-width // 32) * 32)
    padded[:, :, :height, :width] = images
    padded = padded.contiguous(memory_format=torch.channels_last)
    sizes = [size] * batch_size

    fast = copy.deepcopy(own)
    use_winograd(fast, training=False, evaluation=True)
    cases = {
        "torchvision": partial(detect, peer, list(images)),
        "ours": partial(detect, own, padded, image_sizes=sizes),
        "ours, evaluation.winograd": partial(detect, fast, padded, image_sizes=sizes),
    }
    if not eager:
        compiled = copy.deepcopy(own)
        compiled.compile_network()
        cases["ours, compiled"] = partial(detect, compiled, padded, image_sizes=sizes)
    found = {name: sum(len(detections["scores"]) for detections in run()) for name, run in cases.items()}
    seconds = interleave(cases, REPETITIONS)
    return [
        {
            "model": name,
            "ms per image": 1e3 * value / batch_size,
            "ratio": value / seconds["torchvision"],
            "detections per image": found[name] / batch_size,
        }
        for name, value in seconds.items()
    ]


@torch.inference_mode()
def detect(model: nn.Module, *args: object, **options: object) -> list[dict[str, Tensor]]:
    return model(*args, **options)
