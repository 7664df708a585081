"""A sheet of generated images with their ground truth."""

from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from data.boxes import to_xyxy
from data.files import write_atomically
from data.synthetic.scene import CLASSES
from data.text_files import read_json
from engine.reporting.drawing import draw_detections

TILE = 256
PEN = 1, 12  # width of lines and height of letters, in pixels


def draw_samples(annotation_file: Path, output: Path) -> None:
    """Sheet of a split's first sixteen images with their boxes and class names, a PNG file."""
    content = read_json(annotation_file)
    folder = annotation_file.parent.parent / annotation_file.stem.removeprefix("instances_")
    sheet = Image.new("RGB", (4 * TILE + 3, 4 * TILE + 3), "white")
    for position, entry in enumerate(content["images"][:16]):
        with Image.open(folder / entry["file_name"]) as image:
            tile = pil_to_tensor(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
        objects = [each for each in content["annotations"] if each["image_id"] == entry["id"]]
        boxes = torch.tensor([to_xyxy(*each["bbox"]) for each in objects]).view(-1, 4) * TILE / entry["width"]
        labels = torch.tensor([each["category_id"] - 1 for each in objects])
        drawn = to_pil_image(draw_detections(tile, boxes, labels, None, CLASSES, pen=PEN))
        sheet.paste(drawn, (position % 4 * (TILE + 1), position // 4 * (TILE + 1)))
    write_atomically(output, lambda file: sheet.quantize(256).save(file, "PNG", optimize=True))
