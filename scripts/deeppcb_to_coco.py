"""Converts DeepPCB, defects of printed circuit boards, to a data set in COCO format.

Reads PCBData/ of a clone of github.com/tangsanli5201/DeepPCB: its test.txt is the test split, every tenth image of its
trainval.txt is val. Of each pair the tested image counts; the template without defects is passed over.

python scripts/deeppcb_to_coco.py DeepPCB/PCBData --output datasets/deeppcb
python scripts/deeppcb_to_coco.py DeepPCB/PCBData --output datasets/deeppcb --overwrite --copy
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.errors import DatasetError
from data.formats.convert import LabelledImage, LabelledObject, image_sizes, write_splits
from data.text_files import read_lines
from engine.run.cli import ArgumentParser, user_errors
from engine.tools.conversion import add_output_options, print_conversion

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")  # numbered from 1 in its files
VAL_EVERY = 10


def labelled_images(root: Path, list_name: str) -> list[LabelledImage]:
    """Images of a list, a line `group/00041/00041000.jpg group/00041_not/00041000.txt` each. Raises DatasetError."""
    images = []
    for number, line in enumerate(read_lines(root / list_name), start=1):
        names = line.split()
        if not names:
            continue
        if len(names) != 2:
            raise DatasetError(f"{root / list_name}: line {number}: {line!r} is no image and its labels; mend the line")
        named, labels = root / names[0], root / names[1]
        image = named.with_name(f"{named.stem}_test{named.suffix}")  # the lists name pairs
        size, _ = image_sizes(image)
        images.append(LabelledImage(image, named.name, size, _objects(labels)))
    return images


def _objects(path: Path) -> list[LabelledObject]:
    """Defects of a file with a line `x1 y1 x2 y2 type` each."""
    objects = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            x1, y1, x2, y2, kind = (int(text) for text in line.replace(",", " ").split())
            name = dict(enumerate(CLASSES, start=1))[kind]
        except (ValueError, KeyError):
            raise DatasetError(f"{path}: line {number}: {line!r} is not `x1 y1 x2 y2 type`; mend the line") from None
        objects.append(LabelledObject(name, (x1, y1, x2, y2)))
    return objects


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="PCBDATA", help="folder that holds trainval.txt and test.txt")
    add_output_options(parser)
    args = parser.parse_args()
    with user_errors():
        rest, test = (labelled_images(args.folder, name) for name in ("trainval.txt", "test.txt"))
        val = rest[VAL_EVERY - 1 :: VAL_EVERY]
        train = [image for place, image in enumerate(rest, start=1) if place % VAL_EVERY]
        reports = write_splits(
            args.output, {"train": train, "val": val, "test": test}, CLASSES, args.copy, args.overwrite
        )
        print_conversion(reports, list(CLASSES), [], args.copy)


if __name__ == "__main__":
    main()
