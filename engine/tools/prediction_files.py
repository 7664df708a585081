"""Detections on files: a picture or video of each, one line of what was found, and a results file of all."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from data import DatasetError, ImageError, read_image
from data.boxes import to_xywh
from data.files import write_atomically
from data.frames import Frame, VideoWriter, read_frames
from data.output_folder import OutputFolder
from engine.metrics.coco_files import read_annotations
from engine.metrics.file_names import ImagesByName
from engine.metrics.report import write_json
from engine.reporting.drawing import draw_detections
from engine.run.load import DetectorInfo
from engine.run.progress import progress
from engine.tools.prediction import predict
from engine.tools.prediction_inputs import RESULTS, Input

JPEG_QUALITY = 92
JPEG_SIDE = 65_500  # pixels: the most that the format's library writes


class AnnotationIds:
    """Ids of an annotation file in place of the checkpoint's.

    Args:
        path: COCO format; `annotations` may be empty.
        info: of the checkpoint.
        files: images, each of which must be in it.
    Attributes:
        image_ids: of the files, in their order. category_ids: of the checkpoint's classes.
    Raises:
        DetectionsError: not such a file.
        DatasetError: it lacks a class of the checkpoint or a file, or two files mean one image.
    """

    def __init__(self, path: str | Path, info: DetectorInfo, files: Sequence[Path]) -> None:
        document = read_annotations(path)
        ids = {category["name"]: category["id"] for category in document["categories"]}
        for name in info.classes:
            if name not in ids:
                raise DatasetError(f"{path}: has no category {name!r}, which the checkpoint detects; name its own file")
        self.category_ids = [ids[name] for name in info.classes]
        images = ImagesByName(document["images"])
        found: dict[int, Path] = {}
        for file in files:
            matches = images.find(str(file.absolute()))
            if len(matches) != 1:
                fault = "may be any of several images" if matches else "is no image"
                raise DatasetError(f"{path}: {file} {fault} of this file, by its file_name; leave it out")
            if matches[0] in found:
                raise DatasetError(f"{path}: {found[matches[0]]} and {file} are both image {matches[0]}; leave one out")
            found[matches[0]] = file
        self.image_ids = list(found)


class FilePredictor:
    """Detects on files and writes what was found.

    Args:
        detector, info: from `load_detector`.
        output: folder; `claim_output` has made sure that nothing is in the way.
        threshold: see `predict`.
        ids: of the files that are then given; None: results have no image ids.

    Attributes:
        num_done: how many files are done or were left out.
    """

    def __init__(
        self,
        detector: nn.Module,
        info: DetectorInfo,
        output: str | Path,
        threshold: float | None = None,
        ids: AnnotationIds | None = None,
    ) -> None:
        self.detector, self.info, self.output, self.threshold = detector, info, Path(output), threshold
        self.ids = ids
        self.category_ids = info.category_ids if ids is None else ids.category_ids
        self.results: list[dict[str, Any]] = []
        self.num_done = 0

    def run(self, inputs: Sequence[Input]) -> int:
        """Writes a picture of each file, and `output`/detections.json with the detections of all.

        That is a list in COCO's results format with the names: {"image_id", "file_name", "category_id",
        "category_name", "bbox" [x, y, width, height] in pixels of the image, "score"}; without `image_id` where no ids
        are known, and for videos with "frame", from 0, and "seconds".

        Returns:
            how many files could not be read to their end: each gets one warning line on standard error, and the rest
            is done.
        Raises:
            OSError: a result cannot be written.
            KeyboardInterrupt: Ctrl-C, after the detections of the files before it are written.
        """
        OutputFolder(self.output).discard([RESULTS])  # an earlier one is of other pictures
        num_unreadable = 0
        try:
            for entry in progress(iterable=inputs, desc="predict", unit="file"):
                image_id = {} if self.ids is None else {"image_id": self.ids.image_ids[self.num_done]}
                try:
                    line = self._frames(entry) if entry.frames else self._image(entry, image_id)
                except DatasetError as error:
                    tqdm.write(_printable(f"warning: {error}; left out"), file=sys.stderr)
                    num_unreadable += 1
                else:
                    tqdm.write(_printable(f"{entry.file}: {line}"), file=sys.stdout)
                self.num_done += 1
        except KeyboardInterrupt:
            write_json(self.output / RESULTS, self.results)
            raise
        write_json(self.output / RESULTS, self.results)
        return num_unreadable

    def _image(self, entry: Input, image_id: dict[str, int]) -> str:
        """What was found in an image."""
        start = time.perf_counter()
        image = read_image(entry.file, exif=self.info.config.data.exif)
        found, drawn = self._detect(image)
        seconds = time.perf_counter() - start
        write_atomically(entry.picture, partial(_write_jpeg, drawn))
        self.results += self._rows(found, image_id | {"file_name": str(entry.file)})
        return f"{self._summary(found['labels'])} ({1000 * seconds:.0f} ms)"

    def _frames(self, entry: Input) -> str:
        """What was found in the frames of a video or animated picture."""
        start, results, labels, count = time.perf_counter(), [], [], 0
        problem: ImageError | None = None

        def frames() -> Iterator[tuple[int, Frame]]:
            nonlocal problem
            try:
                yield from enumerate(read_frames(entry.file, self.info.config.data.exif))
            except ImageError as error:
                problem = error

        def write(file: IO[bytes]) -> None:
            nonlocal count
            writer: VideoWriter | None = None
            for number, frame in progress(iterable=frames(), desc=entry.file.name, unit=" frames", leave=False):
                found, drawn = self._detect(frame.pixels)
                writer = writer or VideoWriter(file)  # the decoder, without which there is no frame either
                writer.add(Frame(drawn, frame.seconds))
                place = {"file_name": str(entry.file), "frame": number, "seconds": round(frame.seconds, 3)}
                results.extend(self._rows(found, place))
                labels.append(found["labels"])
                count = number + 1
            if writer is None:
                raise problem or ImageError(f"{entry.file}: unreadable video (no frame in it)")
            writer.close()

        write_atomically(entry.picture, write)
        self.results += results
        if problem is not None:
            raise ImageError(f"{problem}, after {count} frames, which are done") from problem
        rate = count / (time.perf_counter() - start)
        return f"{count} frames: {self._summary(torch.cat(labels))} ({rate:.1f} frames/s)"

    def _detect(self, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        found = predict(self.detector, self.info, image, self.threshold)
        return found, draw_detections(image, found["boxes"], found["labels"], found["scores"], self.info.classes)

    def _rows(self, found: dict[str, Tensor], place: dict[str, Any]) -> list[dict[str, Any]]:
        boxes = torch.stack(to_xywh(*found["boxes"].unbind(1)), dim=1)
        rows = (boxes, found["scores"], found["labels"])
        return [
            {
                **place,
                "category_id": self.category_ids[label],
                "category_name": self.info.classes[label],
                "bbox": box,
                "score": score,
            }
            for box, score, label in zip(*(row.tolist() for row in rows), strict=True)
        ]

    def _summary(self, labels: Tensor) -> str:
        """Numbers of the classes found, the most frequent first."""
        counts = Counter(labels.tolist()).most_common()
        return ", ".join(f"{count} {self.info.classes[label]}" for label, count in counts) or "nothing"


def claim_output(inputs: Sequence[Input], output: str | Path, read: Sequence[str | Path] = ()) -> None:
    """Makes the folder of the results ready for the files that `FilePredictor` writes.

    Args:
        read: files that are read beside the inputs.
    Raises:
        OutputError: a file is in the way that was not written there before, or that is an input.
        OSError: the folder cannot be written.
    """
    names = [entry.picture.relative_to(output).as_posix() for entry in inputs]
    OutputFolder(output).claim([RESULTS, *names], [*read, *(entry.file for entry in inputs)])


def _printable(text: str) -> str:
    """One line, whatever the names of files and classes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _write_jpeg(picture: Tensor, file: IO[bytes]) -> None:
    image = to_pil_image(picture)
    image.thumbnail((JPEG_SIDE, JPEG_SIDE))  # nothing happens to smaller ones
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # thin coloured lines stay sharp
