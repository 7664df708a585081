"""Detection on image files at the operating point that LRP calls the best: pictures and a results file."""

import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from data import DatasetError, collate, read_image, to_original
from data.boxes import to_xywh
from data.files import write_atomically
from data.image_files import IMAGE_SUFFIXES, files_below, is_image
from data.output_folder import OutputFolder
from engine.metrics.report import write_json
from engine.reporting.drawing import draw_detections
from engine.run.datasets import evaluation_transform
from engine.run.images import to_network
from engine.run.load import DetectorInfo
from engine.run.progress import progress

DEFAULT_THRESHOLD = 0.5  # of a class without an LRP-optimal one
JPEG_QUALITY = 92
RESULTS = "detections.json"


def score_thresholds(info: DetectorInfo, threshold: float | None = None) -> list[float]:
    """The score from which each of the K classes is shown: its LRP-optimal one, 0.5 where it has none.

    Args:
        threshold: overrides them all.
    """
    if threshold is not None:
        return [threshold] * len(info.classes)
    optimal = info.thresholds or [None] * len(info.classes)
    return [DEFAULT_THRESHOLD if value is None else value for value in optimal]


def classes_without_threshold(info: DetectorInfo) -> list[str]:
    """Classes that the checkpoint's evaluation found no true positive of, or all where there was no evaluation."""
    if info.thresholds is None:
        return info.classes
    return [name for name, value in zip(info.classes, info.thresholds, strict=True) if value is None]


@torch.inference_mode()
def predict(
    detector: nn.Module, info: DetectorInfo, image: Tensor, threshold: float | None = None
) -> dict[str, Tensor]:
    """Detections of one image at the operating point, resized and padded as in evaluation.

    Args:
        detector, info: from `load_detector`.
        image: (3, H, W) uint8, RGB, of any size (see `data.read_image`, which turns it as
            `info.config.data.exif` says).
        threshold: score from which a detection counts; None takes each class's LRP-optimal one, 0.5 where it has none.
            What scores at most `model.score_thresh` (0.05) is never detected.
    Returns:
        "boxes" (n, 4) xyxy in pixels of `image`, "scores" (n,) and "labels" (n,) in 0..K-1, on the CPU, best first.
    """
    no_objects = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    resized, _ = evaluation_transform(info.config)(image, no_objects)
    size = resized.shape[-2], resized.shape[-1]
    batch, _ = collate([(resized, no_objects | {"crowd": torch.zeros(0, dtype=torch.bool)})])
    batch = to_network(batch, next(detector.parameters()).device)
    found = {name: value.cpu() for name, value in detector(batch, image_sizes=[size])[0].items()}
    kept = found["scores"] >= torch.tensor(score_thresholds(info, threshold))[found["labels"]]
    found = {name: value[kept] for name, value in found.items()}
    return found | {"boxes": to_original(found["boxes"], size, (image.shape[-2], image.shape[-1]))}


def find_images(paths: Sequence[str | Path], output: str | Path) -> list[tuple[Path, Path]]:
    """The image files among `paths` and in the folders among them, recursively, each once and in order.

    Args:
        output: folder of the results; what lies in it is not an input.
    Returns:
        (file, where its picture goes): below `output` as the file lies below the folder that was named, as .jpg, with
        a number where another file's picture has that name.
    Raises:
        DatasetError: a path does not exist, or a folder holds no image.
    """
    output = Path(output)
    images: list[tuple[Path, Path]] = []
    seen: set[Path] = set()
    taken: set[str] = set()
    for path in map(Path, paths):
        if not path.exists():
            raise DatasetError(f"{path}: no such image or folder; check the path")
        files = sorted(_images_below(path, output)) if path.is_dir() else [path]
        if not files:
            raise DatasetError(f"{path}: no image in this folder or below; looked for {', '.join(IMAGE_SUFFIXES)}")
        for file in files:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                name = file.relative_to(path) if path.is_dir() else Path(file.name)
                images.append((file, output / _free_name(name.with_suffix(""), taken)))
    return images


def claim_output(images: Sequence[tuple[Path, Path]], output: str | Path, inputs: Sequence[str | Path] = ()) -> None:
    """Makes the folder of the results ready for the files that `predict_files` writes.

    Args:
        images: from `find_images`.
        inputs: files that are read beside the images.
    Raises:
        OutputError: a file is in the way that was not written there before, or that is an input.
        OSError: the folder cannot be written.
    """
    names = [picture.relative_to(output).as_posix() for _, picture in images]
    OutputFolder(output).claim([RESULTS, *names], [*inputs, *(file for file, _ in images)])


def predict_files(
    detector: nn.Module,
    info: DetectorInfo,
    images: Sequence[tuple[Path, Path]],
    output: str | Path,
    threshold: float | None = None,
) -> int:
    """Writes a picture of each image with its detections, and `output`/detections.json with all of them.

    That is a list in COCO's results format, with the names: {"image_id" (position in `images`, from 1), "file_name",
    "category_id", "category_name", "bbox" [x, y, width, height] in pixels of the image, "score"}.

    Args:
        images: from `find_images`; `claim_output` has made sure that nothing is in their way.
    Returns:
        how many images could not be read: each gets one warning line on standard error, and the rest is done.
    Raises:
        OSError: a result cannot be written.
    """
    results: list[dict[str, Any]] = []
    num_unreadable = 0
    for image_id, (file, picture) in enumerate(progress(iterable=images, desc="predict", unit="image"), start=1):
        try:
            image = read_image(file, exif=info.config.data.exif)
        except DatasetError as error:
            tqdm.write(f"warning: {error}; left out", file=sys.stderr)
            num_unreadable += 1
            continue
        found = predict(detector, info, image, threshold)
        drawn = draw_detections(image, found["boxes"], found["labels"], found["scores"], info.classes)
        write_atomically(picture, partial(_write_jpeg, drawn))
        boxes = torch.stack(to_xywh(*found["boxes"].unbind(1)), dim=1)
        rows = (boxes, found["scores"], found["labels"])
        results.extend(
            {
                "image_id": image_id,
                "file_name": str(file),
                "category_id": info.category_ids[label],
                "category_name": info.classes[label],
                "bbox": box,
                "score": score,
            }
            for box, score, label in zip(*(row.tolist() for row in rows), strict=True)
        )
    write_json(Path(output) / RESULTS, results)
    return num_unreadable


def _images_below(folder: Path, output: Path) -> Iterator[Path]:
    results = os.path.realpath(output)
    for path in files_below(folder):
        if is_image(path) and not Path(os.path.realpath(path.parent)).is_relative_to(results):
            yield path


def _free_name(stem: Path, taken: set[str]) -> Path:
    """`stem`.jpg, or with the first number that makes it a new name; some file systems ignore case."""
    name, number = stem.with_name(f"{stem.name}.jpg"), 1
    while str(name).lower() in taken:
        number += 1
        name = stem.with_name(f"{stem.name}-{number}.jpg")
    taken.add(str(name).lower())
    return name


def _write_jpeg(picture: Tensor, file: IO[bytes]) -> None:
    to_pil_image(picture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # thin coloured lines stay sharp
