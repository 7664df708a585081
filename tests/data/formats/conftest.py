"""Labels of other formats, written for a test."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def voc(tmp_path: Path):
    """voc({name: objects}, size=(width, height) of the XML or None, lists={split: names}, stored=size of the files)."""

    def write(files: dict[str, list[str]], size=(64, 48), lists=None, exif=None, stored=(64, 48)) -> Path:
        root = tmp_path / "voc"
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        tags = Image.Exif()
        if exif:
            tags[0x0112] = exif
        for name, objects in files.items():
            sides = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
            text = f"<annotation><filename>C:\\old\\{name}.png</filename>{sides}{''.join(objects)}</annotation>"
            (root / "Annotations" / f"{name}.xml").write_text(text)
            Image.new("RGB", stored).save(root / "JPEGImages" / f"{name}.jpg", exif=tags)
        for split, names in (lists or {}).items():
            (root / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name} 1\n" for name in names))
        return root

    return write


@pytest.fixture
def yolo(tmp_path: Path):
    """yolo({"train/images/a.jpg": lines of its label file, or None for no file}, data_yaml) -> folder."""

    def write(files: dict[str, list[str] | None], data_yaml: str | None) -> Path:
        root = tmp_path / "yolo"
        for name, lines in files.items():
            image = root / name
            labels = Path(*["labels" if part == "images" else part for part in image.parts]).with_suffix(".txt")
            for path in (image, labels):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (200, 100)).save(image)
            if lines is not None:
                labels.write_text("\n".join(lines) + "\n")
        if data_yaml is not None:
            (root / "data.yaml").write_text(data_yaml)
        return root

    return write
