"""A sheet of generated images with their ground truth, drawn without PyTorch, as they are generated."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data.files import write_atomically
from data.synthetic.scene import CLASSES
from data.text_files import read_json

TILE = 256
COLOURS = ("#ff4d4d", "#ffd23f", "#3ddc84", "#4dc9ff", "#ff8c42", "#c792ff", "#ff6ec7", "#f0f0f0")


def draw_samples(annotation_file: Path, output: Path) -> None:
    """Sheet of a split's first sixteen images with their boxes and class names, a PNG file."""
    content = read_json(annotation_file)
    folder = annotation_file.parent.parent / annotation_file.stem.removeprefix("instances_")
    sheet = Image.new("RGB", (4 * TILE + 3, 4 * TILE + 3), "white")
    for position, entry in enumerate(content["images"][:16]):
        with Image.open(folder / entry["file_name"]) as image:
            tile = image.resize((TILE, TILE), Image.Resampling.BICUBIC)
        draw_boxes(tile, [a for a in content["annotations"] if a["image_id"] == entry["id"]], TILE / entry["width"])
        sheet.paste(tile, (position % 4 * (TILE + 1), position // 4 * (TILE + 1)))
    write_atomically(output, lambda file: sheet.quantize(256).save(file, "PNG", optimize=True))


def draw_boxes(tile: Image.Image, annotations: list[dict], scale: float) -> None:
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(size=12)
    boxes = [(a["category_id"] - 1, *(scale * value for value in a["bbox"])) for a in annotations]
    for label, x, y, w, h in boxes:
        draw.rectangle((x, y, x + w - 1, y + h - 1), outline=COLOURS[label])
    taken = [box[1:] for box in boxes]  # what a class name had better not cover
    for label, x, y, w, h in boxes:
        tw, th = draw.textlength(CLASSES[label], font=font) + 4, 16
        spots = [(i, j, tw, th) for j in (y - th, y + h, y, y + h - th) for i in (x, x + w - tw)]
        spots = [s for s in spots if min(s[:2]) >= 0 and s[0] + tw <= TILE and s[1] + th <= TILE] or [(0, 0, tw, th)]
        i, j, _, _ = spot = min(spots, key=lambda s: sum(common_area(s, other) for other in taken))
        taken.append(spot)
        draw.rectangle((i, j, i + tw - 1, j + th - 1), fill=COLOURS[label])
        draw.text((i + 2, j + 1), CLASSES[label], fill="black", font=font)


def common_area(a: Sequence[float], b: Sequence[float]) -> float:
    w, h = (min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    return max(0, w) * max(0, h)
