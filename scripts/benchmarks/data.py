"""The training pipeline: JPEG files to augmented tensors on one core, torchvision's SSD pipeline against ours."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from benchmarks.timing import interleave
from data import CocoDetection, train_transform
from data.synthetic.scene import draw_scene

NUM_IMAGES, REPETITIONS = 24, 5
FILE_SIZE = 640  # pixels, about COCO's


def benchmark_data(image_size: int) -> list[dict]:
    """Rows of the table: images per second and core."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        own = CocoDetection(folder, "train", transform=train_transform("ssd", (image_size, image_size)))
        peer = PeerDataset(Path(folder), image_size)
        cases = {"torchvision": lambda: read(peer), "ours": lambda: read(own)}
        seconds = interleave(cases, REPETITIONS)
    return [
        {"pipeline": name, "images/s per core": NUM_IMAGES / value, "ratio": seconds["torchvision"] / value}
        for name, value in seconds.items()
    ]


class PhotometricDistort(v2.RandomPhotometricDistort):
    """Without torchvision's swaps of channels, which the paper's recipe has not."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return super().make_params(flat_inputs) | {"channel_permutation": None}


class PeerDataset:
    """PIL images through torchvision's transforms of its SSD recipe (references/detection, v2): steps, probabilities
    and ranges are ours, as tests/data/test_augment_statistics.py checks."""

    def __init__(self, folder: Path, image_size: int) -> None:
        content = json.loads((folder / "annotations/instances_train.json").read_text())
        self.files = [folder / "train" / image["file_name"] for image in content["images"]]
        self.boxes: list[list[list[float]]] = [[] for _ in self.files]
        for annotation in content["annotations"]:
            self.boxes[annotation["image_id"] - 1].append(annotation["bbox"])
        self.transform = v2.Compose(
            [
                v2.PILToTensor(),
                PhotometricDistort(),
                v2.RandomZoomOut(fill={tv_tensors.Image: (123.0, 117.0, 104.0), "others": 0}),
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(),
                v2.Resize((image_size, image_size)),
                v2.SanitizeBoundingBoxes(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        image = Image.open(self.files[index]).convert("RGB")
        boxes = torch.tensor(self.boxes[index]).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width))
        return self.transform(image, {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)})


def read(dataset: CocoDetection | PeerDataset) -> None:
    torch.manual_seed(0)
    for index in range(len(dataset)):
        dataset[index]


def make_data(folder: Path) -> None:
    """Generated shapes in files of COCO's size."""
    (folder / "train").mkdir()
    (folder / "annotations").mkdir()
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(1, NUM_IMAGES + 1):
        pixels, objects, _ = draw_scene(0, "train", index, FILE_SIZE)
        name = f"{index:06d}.jpg"
        Image.fromarray(pixels).crop((0, 0, FILE_SIZE, FILE_SIZE * 3 // 4)).save(folder / "train" / name, quality=92)
        images.append({"id": index, "file_name": name, "width": FILE_SIZE, "height": FILE_SIZE * 3 // 4})
        for layer in objects:
            x, y, width, height = layer.box(FILE_SIZE)
            height = min(y + height, FILE_SIZE * 3 // 4) - y
            if height > 0:
                box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
                annotations.append(box | {"id": len(annotations) + 1, "image_id": index, "category_id": 1})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "shape"}]}
    (folder / "annotations/instances_train.json").write_text(json.dumps(content))
