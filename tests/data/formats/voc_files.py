"""Folders of Pascal VOC, written and converted for a test."""

from pathlib import Path

from PIL import Image

from data.formats.voc import VocFolder

OBJECT = "<object><name>{}</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
BOX = (1.0, 2.0, 9.0, 8.0)


def annotation(file_name: str = "", name: str = "cat") -> str:
    return f"<annotation><filename>{file_name}</filename>{OBJECT.format(name)}</annotation>"


def write(root: Path, *names: str) -> Path:
    """Images, annotations with a cat, and other files, by their suffixes."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".xml":
            path.write_text(annotation())
        elif path.suffix.lower() in (".txt", ".csv"):
            path.write_text("")
        else:
            with path.open("wb") as file:
                Image.new("RGB", (16, 12)).save(file, "JPEG")
    return root


def convert(root: Path, output: Path | None = None) -> tuple[dict[str, list[str]], list[str]]:
    """Split → names of its images, each with the one cat; and the lines about files."""
    voc = VocFolder(root, output)
    parts = voc.image_sets() or {"train": voc.xml_files}
    splits = {split: voc.read(files, "crowd") for split, files in parts.items()}
    for images in splits.values():
        assert all([item.box for item in image.objects] == [BOX] for image in images)
    names = {split: [image.file_name for image in images] for split, images in splits.items()}
    return names, voc.tally.lines(root, splits, voc.reason_left_out)


def lists(root: Path, **contents: str) -> Path:
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (root / "ImageSets/Main" / f"{name}.txt").write_text(text)
    return root
