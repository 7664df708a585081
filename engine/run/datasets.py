"""Data sets as the configuration names them."""

import logging
import os
import shlex
from pathlib import Path

from data import CocoDetection, DatasetError, eval_transform, train_transform
from data.counts import counted
from data.synthetic.shapes import generate_shapes, is_generated
from data.transforms import OwnSize, Resize, ResizeShortSide, Resizing
from engine.run.config import Config
from engine.run.distributed import Processes
from engine.run.groups import DataConfig
from engine.run.progress import progress

log = logging.getLogger(__name__)

# Not a key of the configuration: a checkpoint, which may be a stranger's, must not say where files go.
PIXELS = "ALRP_PIXELS"  # environment variable: folder of decoded images, see `PixelFolder`


def prepare_data(config: Config, processes: Processes) -> None:
    """Writes the splits of the generated data set (`data.generate`) that are missing, in the main process.

    Only for configurations that the user wrote: what a checkpoint brings along may not say where files go.

    Raises:
        DatasetError: they would go into a folder that holds something else, or beside generated splits of other
            parameters.
    """
    plan = config.data.generate
    if plan is None:
        return
    if processes.is_main:
        data, root = config.data, Path(config.data.root)
        # of splits of one name the training split's number counts
        counts = {data.test_split: plan.test, data.val_split: plan.val, data.train_split: plan.train}
        files = {split: root / "annotations" / f"instances_{split}.json" for split in counts if split is not None}
        # a split of the user's own stays as it is; a generated one of other parameters is refused there
        drawn = {split: counts[split] for split, file in files.items() if not file.exists() or is_generated(file)}
        generate_shapes(root, splits=drawn, image_size=plan.image_size, seed=plan.seed)
    processes.barrier()


def training_set(config: Config) -> CocoDetection:
    """The training split with its augmentation. Raises DatasetError."""
    data = config.data
    dataset = CocoDetection(
        data.root,
        data.train_split,
        classes=data.classes,
        transform=train_transform(data.augmentation, data.train_size, data.short_sides, data.long_side),
        seed=config.run.seed,
        on_error=data.on_error,
        exif=data.exif,
        inside_only=data.inside_only,
        pixel_folder=_pixel_folder(),
    )
    if not dataset.has_annotations:
        raise DatasetError(f"{dataset.annotation_file}: no annotations to train on; set data.train_split")
    if not dataset.has_objects:
        raise DatasetError(
            f"{dataset.annotation_file}: no object in {counted(len(dataset), 'image')}, so nothing to train on; "
            "label some, or look at data.classes and data.train_split"
        )
    return dataset


def _pixel_folder() -> Path | None:
    folder = os.environ.get(PIXELS)
    return Path(folder) if folder else None


def category_difference(dataset: CocoDetection, reference: CocoDetection) -> str | None:
    """The reason why labels of one data set mean something else in the other; None if they mean the same."""
    if dataset.class_names == reference.class_names:
        return None
    files = f"{dataset.annotation_file} has other categories than {reference.annotation_file}"
    if sorted(dataset.class_names) == sorted(reference.class_names):
        files = f"{dataset.annotation_file} numbers the categories in another order than {reference.annotation_file}"
    return f"{files}; give both files the same categories"


def check_together(training: CocoDetection, validation: CocoDetection) -> None:
    """Raises DatasetError where the two sets do not go together, and warns of what validation cannot tell."""
    if (difference := category_difference(validation, training)) is not None:
        raise DatasetError(f"data.val_split: {difference}")
    if count := validation.images_shared_with(training):
        log.warning(
            "data.val_split: %d of %d validation images are training images too: metrics on them say little of others",
            count,
            len(validation),
        )
    if not validation.has_objects:
        log.warning(
            "%s: no object, so there is nothing to compare checkpoints by: best.pt will be the newest",
            validation.annotation_file,
        )


def hold_files(dataset: CocoDetection, processes: Processes) -> None:
    """Reads the image files into memory (`data.cache`), in every process. Raises DatasetError where they do not fit."""
    copies = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    with progress(
        total=len(dataset), desc="data.cache", unit="file", disable=not processes.is_main, leave=False
    ) as bar:
        size = dataset.hold_files(copies, bar.update)
    log.info(
        "data.cache: %s, %.2f GB of memory, times %s a host",
        counted(len(dataset), "file"),
        size / 1e9,
        counted(copies, "process"),
    )


def evaluation_set(config: Config, split: str) -> CocoDetection:
    """A split, by role ("val", "test") or literal name, resized for evaluation. Raises DatasetError."""
    data = config.data
    roles = {"val": data.val_split, "test": data.test_split}
    name = roles.get(split, split)
    if name is None:
        raise DatasetError(f"--split {split}: the configuration names no test split; set data.test_split=NAME")
    kinds = ("instances", "image_info")
    exists = any((Path(data.root) / "annotations" / f"{kind}_{name}.json").is_file() for kind in kinds)
    if not exists and (command := _generating_command(data)) is not None:
        raise DatasetError(f"{data.root}: no split {name!r}; generate the data with: {command}")
    transform = evaluation_transform(config)
    return CocoDetection(
        data.root,
        name,
        classes=data.classes,
        transform=transform,
        on_error=data.on_error,
        exif=data.exif,
        inside_only=data.inside_only,
        pixel_folder=_pixel_folder(),
    )


def _generating_command(data: DataConfig) -> str | None:
    """The command that makes the data that `data.generate` describes; None if there is none."""
    plan = data.generate
    if plan is None or (data.train_split, data.val_split, data.test_split or "test") != ("train", "val", "test"):
        return None
    counts = {"train": plan.train, "val": plan.val, "test": plan.test if data.test_split else 0}
    numbers = " ".join(f"--{split} {count}" for split, count in counts.items())
    root = shlex.quote(data.root)  # the command is to be copied, and the name may be a stranger's
    return f"python scripts/make_shapes.py --output {root} {numbers} --size {plan.image_size} --seed {plan.seed}"


def training_resize(data: DataConfig) -> Resizing:
    """The resizing of training images, augmentation aside; of a range of short sides that in the middle."""
    if data.augmentation == "crop":
        return OwnSize()
    if data.short_sides is None or data.long_side is None:
        return Resize(data.train_size)
    return ResizeShortSide(sum(data.short_sides) // 2, data.long_side)


def evaluation_transform(config: Config) -> Resizing:
    """The resizing of images that are detected on."""
    evaluation = config.evaluation
    if evaluation.short_side is None:
        if config.data.augmentation == "crop":  # whole images, at the scale of the windows
            return OwnSize()
        return eval_transform(size=config.data.train_size)
    as_torchvision = evaluation.resize == "torchvision"
    return eval_transform(evaluation.short_side, evaluation.long_side, as_torchvision=as_torchvision)
