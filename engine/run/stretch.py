"""How far a configuration changes the shape of images: width against height."""

from collections import Counter

import numpy as np

from data import CocoDetection
from data.counts import counted
from data.transforms import OwnSize, ResizeShortSide, Resizing
from engine.run.config import Config
from engine.run.datasets import evaluation_transform, training_resize

TOLERANCE = 1.02  # below it is rounding to whole pixels


def described(resize: Resizing) -> str:
    """The size that images get: width×height, the limits of their sides, or their own."""
    if isinstance(resize, OwnSize):
        return "their own size"
    if isinstance(resize, ResizeShortSide):
        return f"short side {resize.short_side}, long ≤ {resize.long_side}"
    height, width = resize.size
    return f"{width}×{height}"


def stretch_note(dataset: CocoDetection, config: Config, training: bool) -> str | None:
    """One line that says by how much training, or evaluation, stretches how many of the images, and what keeps their
    shape; where limits of the sides keep it, which image they leave no pixel of a side. None where there is none."""
    resize = training_resize(config.data) if training else evaluation_transform(config)
    work = "training" if training else "evaluation"
    if isinstance(resize, ResizeShortSide):
        return _thin_note(dataset, resize, work)
    factors = []
    for (height, width), count in Counter(map(tuple, dataset.sizes.tolist())).items():
        new_height, new_width = resize.output_size((height, width))
        factor = (new_width / width) / (new_height / height)
        factors += [max(factor, 1 / factor)] * count
    stretched = [factor for factor in factors if factor > TOLERANCE]
    if not stretched:
        return None
    group = "data" if training else "evaluation"
    long = max(config.data.train_size)
    short = round(long * float(np.median(dataset.sizes.min(axis=1) / dataset.sizes.max(axis=1))))
    how_many = f"{len(stretched)} of {counted(len(factors), 'image')}"
    return (
        f"{work} stretches {how_many}, by {np.median(stretched):.2f} (median) "
        f"to {max(stretched):.2f} of width against height; {group}.short_side={short} {group}.long_side={long} keeps "
        "their shape"
    )


def _thin_note(dataset: CocoDetection, resize: ResizeShortSide, work: str) -> str | None:
    sides = dataset.sizes
    thin = np.flatnonzero(sides.min(axis=1) * resize.long_side < sides.max(axis=1))
    if not len(thin):
        return None
    first = int(thin[0])
    height, width = sides[first].tolist()
    return (
        f"{work} resizes {counted(len(thin), 'image')} to a side of less than a pixel, the first {dataset.path(first)} "
        f"(image id {dataset.image_ids[first]}, {width}×{height}); leave such images out, or cut them"
    )
