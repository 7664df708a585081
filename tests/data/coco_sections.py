"""The training file of a data set that `write_coco` wrote, and sections with one entry to write."""

from pathlib import Path


def train_json(root: Path) -> Path:
    return root / "annotations/instances_train.json"


def image(**changes: object) -> list[dict]:
    return [{"id": 10, "file_name": "000.png", "height": 48, "width": 64, **changes}]


def annotation(**changes: object) -> list[dict]:
    return [{"id": 77, "image_id": 10, "category_id": 1, "bbox": [1, 1, 3, 3], **changes}]
