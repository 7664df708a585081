"""Inference with post-processing: images to detections, torchvision's RetinaNet against ours."""

import torch

from benchmarks.models import make_batch, make_models
from benchmarks.timing import interleave

REPETITIONS = 9


def benchmark_infer(size: tuple[int, int], batch_size: int, device: torch.device) -> list[dict]:
    """Rows of the table, in float32; both models get the images padded to multiples of 32 alike."""
    peer, own = (model.eval() for model in make_models(size, "focal", device))
    height, width = size
    images, _ = make_batch(batch_size, size, device)
    padded = images.new_zeros(batch_size, 3, -(-height // 32) * 32, -(-width // 32) * 32)
    padded[:, :, :height, :width] = images
    padded = padded.contiguous(memory_format=torch.channels_last)
    sizes = [size] * batch_size

    def run_peer() -> list[dict]:
        with torch.inference_mode():
            return peer(list(images))

    def run_own() -> list[dict]:
        with torch.inference_mode():
            return own(padded, image_sizes=sizes)

    found = [sum(len(detections["scores"]) for detections in run()) / batch_size for run in (run_peer, run_own)]
    seconds = interleave({"torchvision": run_peer, "ours": run_own}, REPETITIONS)
    return [
        {
            "model": name,
            "ms per image": 1e3 * value / batch_size,
            "ratio": value / seconds["torchvision"],
            "detections per image": count,
        }
        for (name, value), count in zip(seconds.items(), found, strict=True)
    ]
