"""Generate the synthetic shapes data set, in COCO format; `train.py` does it by itself for configs/quickstart.yaml.

python scripts/make_shapes.py --output datasets/shapes
python scripts/make_shapes.py --output datasets/small --train 200 --val 50 --test 0 --samples samples.png
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.synthetic.scene import CLASSES
from data.synthetic.shapes import generate_shapes
from engine.run.cli import ArgumentParser, user_errors
from engine.run.groups import GenerateConfig

TILE = 256
COLOURS = ("#ff4d4d", "#ffd23f", "#3ddc84", "#4dc9ff", "#ff8c42", "#c792ff", "#ff6ec7", "#f0f0f0")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="DIR", required=True, help="folder of the data set")
    defaults = GenerateConfig()
    for split in ("train", "val", "test"):
        count = getattr(defaults, split)
        parser.add_argument(f"--{split}", type=int, metavar="N", default=count, help=f"images, 0 for none ({count})")
    size, seed = defaults.image_size, defaults.seed
    parser.add_argument("--size", type=int, metavar="S", default=size, help=f"side of the images in pixels ({size})")
    parser.add_argument("--seed", type=int, metavar="K", default=seed, help=f"another seed is other data ({seed})")
    parser.add_argument("--samples", metavar="FILE.png", help="draw sixteen images with their ground truth there too")
    args = parser.parse_args()
    splits = {split: getattr(args, split) for split in ("train", "val", "test") if getattr(args, split) != 0}
    if not splits:
        parser.error("nothing to generate: --train, --val and --test are all 0")
    with user_errors():
        files = generate_shapes(args.output, splits, image_size=args.size, seed=args.seed)
        for split, file in files.items():
            print(f"{split}: {splits[split]} images, {file}")
        if args.samples:
            draw_samples(next(iter(files.values())), Path(args.samples))


def draw_samples(annotation_file: Path, output: Path) -> None:
    """Sheet of a split's first sixteen images with their boxes and class names."""
    content = json.loads(annotation_file.read_text())
    folder = annotation_file.parent.parent / annotation_file.stem.removeprefix("instances_")
    sheet = Image.new("RGB", (4 * TILE + 3, 4 * TILE + 3), "white")
    for position, entry in enumerate(content["images"][:16]):
        with Image.open(folder / entry["file_name"]) as image:
            tile = image.resize((TILE, TILE), Image.Resampling.BICUBIC)
        draw_boxes(tile, [a for a in content["annotations"] if a["image_id"] == entry["id"]], TILE / entry["width"])
        sheet.paste(tile, (position % 4 * (TILE + 1), position // 4 * (TILE + 1)))
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256).save(output, optimize=True)


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


if __name__ == "__main__":
    main()
