"""Converts BCCD, blood cells, to the data set in COCO format that the measurements here are of.

Reads BCCD/ of a clone of github.com/Shenggan/BCCD_Dataset, in its own splits. Its boxes are taken as most do, from the
corners as they stand: scripts/voc_to_coco.py, which holds them for pixel indices from 1 as the format says, moves
their upper left corners by a pixel. Classes are numbered RBC, WBC, Platelets.

python scripts/bccd_to_coco.py BCCD_Dataset/BCCD --output datasets/bccd
python scripts/bccd_to_coco.py BCCD_Dataset/BCCD --output datasets/bccd --overwrite --copy
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.errors import DatasetError
from data.formats.convert import write_splits
from data.formats.voc import SPLITS, VocFolder
from engine.run.cli import ArgumentParser, user_errors
from engine.tools.conversion import add_output_options, print_conversion

CLASSES = ("RBC", "WBC", "Platelets")


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="BCCD", help="folder that holds Annotations/ and ImageSets/")
    add_output_options(parser)
    args = parser.parse_args()
    with user_errors():
        voc = VocFolder(args.folder, args.output)
        lists = voc.image_sets()
        if missing := [split for split in SPLITS if split not in lists]:
            files = ", ".join(f"no ImageSets/Main/{split}.txt" for split in missing)
            raise DatasetError(f"{args.folder}: {files}; name the folder BCCD of the clone")
        splits = {split: voc.read(lists[split], difficult="keep", corners="edges") for split in SPLITS}
        lines = voc.tally.lines(args.folder, splits, voc.reason_left_out)
        reports = write_splits(args.output, splits, CLASSES, args.copy, args.overwrite)
        print_conversion(reports, list(CLASSES), lines, args.copy)


if __name__ == "__main__":
    main()
