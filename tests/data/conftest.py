"""Small data sets in COCO format, written for the test at hand."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """write_coco(annotations, sizes=[(h, w), …], …) -> root; image i has id 10·(i + 1) and noise in it.

    annotations: tuples (image index, category id, bbox), or dicts that are taken as they are.
    sections: of the annotation file, instead of those made here; None leaves one out.
    """

    def write(
        annotations: list = (),
        sizes: list[tuple[int, int]] = ((48, 64),),
        categories: dict[int, str] | None = None,
        split: str = "train",
        sections: dict | None = None,
    ) -> Path:
        rng = np.random.default_rng(0)
        (tmp_path / split).mkdir(exist_ok=True)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        images, records = [], []
        for i, (height, width) in enumerate(sizes):
            name = f"{i:03}.png"
            noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / split / name)
            images.append({"id": 10 * (i + 1), "file_name": name, "height": height, "width": width})
        for i, record in enumerate(annotations):
            if not isinstance(record, dict):
                index, category, bbox = record
                record = {"id": i + 1, "image_id": 10 * (index + 1), "category_id": category, "bbox": bbox}
                record.update(iscrowd=0, area=bbox[2] * bbox[3])
            records.append(record)
        names = categories or {1: "cat", 2: "dog"}
        document = {
            "images": images,
            "annotations": records,
            "categories": [{"id": key, "name": name} for key, name in names.items()],
            **(sections or {}),
        }
        document = {key: value for key, value in document.items() if value is not None}
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
        return tmp_path

    return write
