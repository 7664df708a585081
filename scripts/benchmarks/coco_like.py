"""Generated data of COCO's kind for benchmarks: textured JPEG files of 640×480, 80 classes, seven objects each."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data.cpus import usable_cpus
from data.synthetic.texture import TEXTURES, blend, texture

WIDTH, HEIGHT, QUALITY = 640, 480, 90
NUM_CLASSES, NUM_OBJECTS = 80, 7
SMALLEST, LARGEST = 24, 320  # sides of the objects, pixels; their logarithms are spread evenly
CHUNK = 16  # images that a process draws before it asks for more


def make_coco_like(root: Path, counts: dict[str, int]) -> dict[str, str]:
    """Writes root/<split>/<index>.jpg and root/annotations/instances_<split>.json; gives the split of each kind.

    A split that is there is kept. Its name is its kind and its count, such as "train_64": of benchmarks that share a
    folder each gets as many images as it asks for. All usable CPUs take part: 5000 images take 16 of them some ten
    seconds.

    Args:
        counts: of images, by kind.
    """
    splits = {kind: f"{kind}_{count}" for kind, count in counts.items()}
    context = multiprocessing.get_context("spawn")  # the caller may hold a GPU
    with ProcessPoolExecutor(usable_cpus(), context) as pool:
        for number, (kind, count) in enumerate(counts.items()):
            split = splits[kind]
            file = root / "annotations" / f"instances_{split}.json"
            if file.exists():
                continue
            (root / split).mkdir(parents=True, exist_ok=True)
            file.parent.mkdir(exist_ok=True)
            drawn = pool.map(partial(_write_image, root / split, number), range(count), chunksize=CHUNK)
            objects = [(index, *each) for index, image in enumerate(drawn) for each in image]
            file.write_text(json.dumps(_document(count, objects)))
    return splits


def _write_image(folder: Path, split: int, index: int) -> list[tuple[int, list[int]]]:
    """Draws one image; gives (label, [x, y, width, height]) of its objects, the later ones in front."""
    rng = np.random.default_rng([split, index])
    image = _surface(rng, HEIGHT, WIDTH)
    objects = []
    for _ in range(NUM_OBJECTS):
        width, height = (int(side) for side in np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), 2)))
        x, y = int(rng.integers(0, WIDTH - width)), int(rng.integers(0, HEIGHT - height))
        image[:, y : y + height, x : x + width] = _surface(rng, height, width)
        objects.append((int(rng.integers(NUM_CLASSES)), [x, y, width, height]))
    pixels = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)  # a sensor's noise
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(folder / f"{index:06d}.jpg", quality=QUALITY)
    return objects


def _surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(3, height, width) float32, 0 to 255."""
    first, second = rng.uniform(0, 255, (2, 3))
    return blend(first, second, texture(rng, height, width, min(height, width), TEXTURES))


def _document(count: int, objects: list[tuple[int, int, list[int]]]) -> dict:
    return {
        "images": [
            {"id": index + 1, "file_name": f"{index:06d}.jpg", "width": WIDTH, "height": HEIGHT}
            for index in range(count)
        ],
        "annotations": [
            {
                "id": number + 1,
                "image_id": index + 1,
                "category_id": label + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (index, label, box) in enumerate(objects)
        ],
        "categories": [{"id": label + 1, "name": f"kind {label + 1}"} for label in range(NUM_CLASSES)],
    }
