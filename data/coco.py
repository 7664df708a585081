"""Detection data sets in COCO format."""

import copy
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.annotations import OBJECT_KEYS, read_annotations
from data.augment import Target
from data.boxes import to_xywh
from data.cache import FileCache
from data.coco_document import usable_document
from data.errors import DatasetError, ImageError
from data.exif import Exif
from data.images import blank_images, read_image
from data.outside import outside_line
from data.pixel_folder import PixelFolder
from data.seeds import mix_seed
from data.transforms import Transform

logger = logging.getLogger(__name__)

IMAGE_REMEDY = "mend or remove such images, or pass over them: data.on_error=skip"  # ends every error of an image file


class CocoDetection(Dataset):
    """Images of `root/<split>/` with the boxes of `root/annotations/instances_<split>.json`.

    The images of a split "test-dev…" may also lie in "test…", where COCO has them.

    Where only `image_info_<split>.json` exists, the images come without boxes and `has_annotations` is False.
    Category ids, sparse or not, become labels 0..K-1 in ascending order. Images without objects are kept.

    Args:
        root: folder of the data set.
        split: name of the split.
        classes: names of the categories to use, None for all; objects of the others are left out.
        transform: takes and returns (image, target); its randomness is torch's default generator's alone.
        seed: with epoch and index of a sample, what its random numbers come from.
        on_error: "stop" raises DatasetError at an unreadable image; "skip" warns once per kind and puts something in
            its place: in training (an item asked for by epoch and index) the next readable image, in evaluation (by
            index alone) a blank image of the annotated size without objects, so that no image counts twice. The
            entries of the annotation file follow the same rule (`read_annotations`).
        exif: what an EXIF orientation does, see `read_image`.
        inside_only: refuse images outside of `root`; else one warning counts them.
        pixel_folder: where decoded images are kept, see `PixelFolder`; None decodes them each time.
    Raises:
        DatasetError: files missing, annotations that cannot be used, images outside that are refused, or a pixel folder
            that cannot be made.

    Attributes:
        annotation_file: Path of the annotations.
        has_annotations: whether they hold objects to learn from or to compare with.
        class_names, category_ids: name and COCO category id of each label.
        image_ids: (N,) int64 array of COCO image ids, by index.
        sizes: (N, 2) int64 array of annotated (height, width), by index.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        on_error: Literal["stop", "skip"] = "stop",
        exif: Exif = "turn",
        inside_only: bool = False,
        pixel_folder: Path | None = None,
    ) -> None:
        self.root = Path(root)
        self.annotation_file = _find_annotations(Path(root), split)
        self.folder = _find_images(Path(root), split, self.annotation_file)
        self.has_annotations = self.annotation_file.name.startswith("instances_")
        self.transform, self.seed, self.on_error, self.exif = transform, seed, on_error, exif
        self._annotations = read_annotations(self.annotation_file, classes, not self.has_annotations, on_error)
        self.class_names, self.category_ids = self._annotations.class_names, self._annotations.category_ids
        self.image_ids, self.sizes = self._annotations.image_ids, self._annotations.sizes
        if line := outside_line(self.root, map(self.path, range(len(self))), inside_only):
            logger.warning("%s", line)
        self._is_sample = False
        self._pixels = None if pixel_folder is None else PixelFolder(pixel_folder)
        self._files: FileCache | None = None
        # By index, 0 or 1 + position in ImageError.KINDS. In shared memory, so that loader processes see each other's
        # finds and only the first one warns.
        self._unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Target]:
        """One sample; random numbers depend on (seed, epoch, index) only and leave the caller's generator alone.

        Args:
            key: (epoch, index) in training; an index alone means that very image, and epoch 0.
        Returns:
            image: (3, H, W) uint8, RGB, or what the transform makes of it.
            target: "boxes" (n, 4) float32 xyxy, pixels of this image; "labels" (n,) int64; "crowd" (n,) bool;
                "image_id" int; "orig_size" (height, width) of the file; "size" (height, width) of this image.
        Raises:
            DatasetError: the image cannot be read (`on_error` "stop"), or none can ("skip").
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        index = range(len(self))[index]
        image, target = self._read(index, may_replace=isinstance(key, tuple))
        target["orig_size"] = tuple(image.shape[-2:])
        if self.transform is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(mix_seed(self.seed, epoch, index))
                image, target = self.transform(image, target)
        return image, {**target, "size": tuple(image.shape[-2:])}

    def pixels(self, index: int, encoded: Tensor | None = None) -> Tensor:
        """(3, H, W) uint8 of an image as annotated; arguments and errors as of `read_image`."""
        read = read_image if self._pixels is None else self._pixels.read
        height, width = self.sizes[index].tolist()
        return read(self.path(index), (height, width), encoded, self.exif)

    def hold_files(self, copies: int = 1, on_file: Callable[[], object] = lambda: None) -> int:
        """Reads every image file once, into memory that loader processes started later share. Arguments and errors as
        of FileCache. Returns the number of bytes."""
        self._files = FileCache([self.path(index) for index in range(len(self))], copies, on_file)
        return self._files.num_bytes

    def sample(self, count: int, transform: Transform | None) -> "CocoDetection":
        """At most `count` of the images, evenly spaced, always the same ones, through another transform.

        Their objects are as training takes them: boxes clipped to the image, without those that have no area.
        """
        count = min(count, len(self))
        sample = copy.copy(self)
        sample._annotations = self._annotations.subset([i * len(self) // count for i in range(count)])
        sample.image_ids, sample.sizes = sample._annotations.image_ids, sample._annotations.sizes
        sample.transform, sample._is_sample, sample._files = transform, True, None
        sample._unreadable = torch.zeros(count, dtype=torch.uint8).share_memory_()
        return sample

    def path(self, index: int) -> Path:
        """The image file; a name that was written on Windows is also read as one with folders."""
        name = self._annotations.file_name(index)
        path = self.folder / name
        if "\\" in name and not os.path.exists(path):
            return self.folder / name.replace("\\", "/")
        return path

    @property
    def has_objects(self) -> bool:
        """Whether any image has an object that is no crowd region."""
        return not bool(self._annotations.crowd.all())

    def images_with_objects(self) -> list[int]:
        """Indices of the images with an object that is no crowd region, ascending."""
        return self._annotations.images_with_objects()

    def images_shared_with(self, other: "CocoDetection") -> int:
        """Number of images that are the same files as those of the same name in another data set."""
        indices = {other._annotations.file_name(index): index for index in range(len(other))}
        names = map(self._annotations.file_name, range(len(self)))
        pairs = [(index, indices[name]) for index, name in enumerate(names) if name in indices]
        return sum(_is_same_file(self.path(own), other.path(theirs)) for own, theirs in pairs)

    def objects(self, index: int) -> Target:
        """`boxes`, `labels` and `crowd` of an image as annotated, in pixels of the file."""
        return self._annotations.objects(index)

    @property
    def digest(self) -> str:
        """A hash of the image ids and of all boxes, labels and crowd flags; where the files lie is not in it."""
        return self._annotations.digest()

    @property
    def unreadable(self) -> dict[int, str]:
        """Images met so far, in any loader process, that could not be read: image id -> one of ImageError.KINDS."""
        found = self._unreadable.nonzero().flatten().tolist()
        return {int(self.image_ids[index]): ImageError.KINDS[self._unreadable[index] - 1] for index in found}

    @property
    def ground_truth(self) -> Path | dict:
        """The annotations to compare detections with: the file, or with "skip" the usable part of its content. Of a
        sample only its own, since reading the file of a large training set takes longer than evaluating the sample."""
        if self._is_sample:
            return self._document()
        if self.on_error == "stop":
            return self.annotation_file
        return usable_document(self.annotation_file, on_error="skip", warn=False)  # __init__ has warned

    def _document(self) -> dict:
        """Images and objects in COCO's form."""
        annotations: list[dict] = []
        for index, image_id in enumerate(self.image_ids.tolist()):
            objects = self.objects(index)
            for box, label, crowd in zip(*(objects[key].tolist() for key in OBJECT_KEYS), strict=True):
                entry = {"image_id": image_id, "category_id": self.category_ids[label], "iscrowd": int(crowd)}
                annotations.append({"id": len(annotations) + 1, **entry, "bbox": list(to_xywh(*box))})
        categories = [
            {"id": category_id, "name": name}
            for category_id, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        images = [
            {"id": image_id, "height": height, "width": width}
            for image_id, (height, width) in zip(self.image_ids.tolist(), self.sizes.tolist(), strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _read(self, index: int, may_replace: bool) -> tuple[Tensor, Target]:
        for candidate in (i % len(self) for i in range(index, index + len(self))):
            image_id = int(self.image_ids[candidate])
            target = {**self.objects(candidate), "image_id": image_id}
            try:
                encoded = None if self._files is None else self._files[candidate]
                return self.pixels(candidate, encoded), target
            except ImageError as error:
                message = f"{error} (image id {image_id} in {self.annotation_file})"
                if self.on_error == "stop":
                    raise DatasetError(f"{message}; {IMAGE_REMEDY}") from error
                kind = 1 + ImageError.KINDS.index(error.kind)
                if not (self._unreadable == kind).any():
                    logger.warning("%s; skipped, as every other image that is %s will be", message, error.kind)
                self._unreadable[candidate] = kind
            if not may_replace:
                image = blank_images(1, *self.sizes[candidate].tolist())[0]
                return image, {**target, **{key: target[key][:0] for key in OBJECT_KEYS}}
        raise DatasetError(f"{self.folder}: not one image of {self.annotation_file} can be read")


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path == other or path.samefile(other)
    except (OSError, ValueError):  # a missing file; a name that no file can have
        return False


def _find_images(root: Path, split: str, annotation_file: Path) -> Path:
    """The folder of the split; COCO's test-dev2017 is a part of the images of test2017."""
    for name in (split, split.replace("-dev", "")):
        if (root / name).is_dir():
            return root / name
    raise DatasetError(f"{root / name}: no such image folder, though {annotation_file} exists")


def _find_annotations(root: Path, split: str) -> Path:
    folder = root / "annotations"
    for kind in ("instances", "image_info"):
        if (path := folder / f"{kind}_{split}.json").is_file():
            return path
    if found := sorted(path.stem.partition("_")[2] for path in folder.glob("instances_*.json")):
        remedy = f"the splits there are {', '.join(found)} (data.train_split, data.val_split, --split)"
    elif "shapes" in root.name:
        remedy = f"generate the data with: python scripts/make_shapes.py --output {root}"
    elif "coco" in root.name.lower():
        remedy = "get COCO 2017 from cocodataset.org (README, COCO), or set data.root"
    elif "bccd" in root.name.lower():
        remedy = "clone github.com/Shenggan/BCCD_Dataset and run scripts/bccd_to_coco.py, or set data.root"
    else:
        remedy = "set data.root to a folder in COCO format (README, Your own data)"
    raise DatasetError(f"{folder / f'instances_{split}.json'}: no such annotation file; {remedy}")
