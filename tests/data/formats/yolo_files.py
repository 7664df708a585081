"""Folders of YOLO text labels, written and converted for a test."""

from pathlib import Path

from PIL import Image

from data.formats.yolo import YoloFolder

ROW = "0 0.5 0.5 0.5 0.5\n"
BOX = (25.0, 12.5, 75.0, 37.5)  # of the row, in images of 100×50 pixels


def write(root: Path, *names: str, **texts: str) -> Path:
    """Images and label files with one row, by their suffixes; texts: name without ".txt" → content."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".txt", ".csv"):
            path.write_text(ROW)
        else:
            with path.open("wb") as file:
                Image.new("RGB", (100, 50)).save(file, "JPEG")
    for name, text in texts.items():
        (root / f"{name}.txt").write_text(text)
    return root


def described(root: Path, text: str, name: str = "data.yaml") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root


def convert(root: Path, output: Path | None = None) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Split → name of each image → number of its objects; and the lines about files."""
    yolo = YoloFolder(root, output)
    parts = yolo.image_sets() or {"train": yolo.all_images()}
    splits = {split: yolo.read(images, split) for split, images in parts.items()}
    assert all(item.box == BOX for images in splits.values() for image in images for item in image.objects)
    found = {split: {image.file_name: len(image.objects) for image in images} for split, images in splits.items()}
    return found, yolo.tally.lines(root, splits, yolo.reason_left_out)
