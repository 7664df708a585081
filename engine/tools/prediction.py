"""Detection on images at the operating point that LRP calls the best."""

from typing import overload

import torch
from torch import Tensor, nn

from data import ImageError, collate
from data.boxes import scale_boxes
from engine.run.datasets import evaluation_transform
from engine.run.images import to_network
from engine.run.load import DetectorInfo
from engine.run.operating_point import score_thresholds
from engine.run.precision import autocast
from engine.tools.image_input import ImageInput, as_pixels

Found = dict[str, Tensor]
ImageList = list[ImageInput] | tuple[ImageInput, ...]


@overload
def predict(detector: nn.Module, info: DetectorInfo, image: ImageInput, threshold: float | None = None) -> Found: ...


@overload
def predict(
    detector: nn.Module, info: DetectorInfo, image: ImageList, threshold: float | None = None
) -> list[Found]: ...


def predict(
    detector: nn.Module,
    info: DetectorInfo,
    image: ImageInput | ImageList,
    threshold: float | None = None,
) -> Found | list[Found]:
    """Detections of one image, or of each of a list, at the operating point, resized and padded as in evaluation.

    Args:
        detector, info: from `load_detector`.
        image: a path, a PIL image, an array (H, W, 3) of uint8, a tensor (3, H, W) of uint8 or of floats in 0..1, all
            RGB and of any size, or a list or tuple of them. Files and PIL images are turned by their EXIF orientation
            as `info.config.data.exif` says.
        threshold: score from which a detection counts; None takes each class's LRP-optimal one, 0.5 where it has none.
            What scores at most `model.score_thresh` (0.05; of FCOS the class) is never detected.
    Returns:
        "boxes" (n, 4) xyxy in pixels of the image, "scores" (n,) and "labels" (n,) in 0..K-1, on the CPU, best first;
        of a list a list of these.
    Raises:
        ImageError: a value or type that is none of these, or a file that cannot be read; names its place in a list.
        ValueError: the threshold is not in 0..1.
    """
    if isinstance(image, list | tuple):
        return [_predict_one(detector, info, one, threshold, f"image {i}: ") for i, one in enumerate(image)]
    return _predict_one(detector, info, image, threshold)


@torch.inference_mode()
def _predict_one(
    detector: nn.Module, info: DetectorInfo, image: ImageInput, threshold: float | None, place: str = ""
) -> Found:
    limits = torch.tensor(score_thresholds(info, threshold))
    try:
        pixels = as_pixels(image, info.config.data.exif)
    except ImageError as error:
        raise ImageError(f"{place}{error}", error.kind) from error
    no_objects = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    resized, _ = evaluation_transform(info.config)(pixels, no_objects)
    size = resized.shape[-2], resized.shape[-1]
    batch, _ = collate([(resized, no_objects | {"crowd": torch.zeros(0, dtype=torch.bool)})])
    batch = to_network(batch, next(detector.parameters()).device)
    with autocast(info.config.evaluation.precision, batch.device):
        found = {name: value.cpu() for name, value in detector(batch, image_sizes=[size])[0].items()}
    kept = found["scores"] >= limits[found["labels"]]
    found = {name: value[kept] for name, value in found.items()}
    return found | {"boxes": scale_boxes(found["boxes"], size, (pixels.shape[-2], pixels.shape[-1]))}
