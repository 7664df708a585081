"""Converts Pascal VOC annotations (XML) to a data set in COCO format.

Reads Annotations/, JPEGImages/ and ImageSets/Main/{train,val,test,trainval}.txt of a folder, or XML files and images
side by side. Without ImageSets, folders called train and val or test are the splits; without these too, the images are
split at random, the same way for the same seed. Images are linked, not moved.

python scripts/voc_to_coco.py VOCdevkit/VOC2012 --output datasets/mine
python scripts/voc_to_coco.py labelled --output datasets/mine --val 0.2 --test 0.1 --seed 1 --copy
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors
from engine.tools.conversion import add_conversion_options, complete_splits, print_conversion


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="VOC_DIR", help="folder that holds Annotations/")
    add_conversion_options(parser)
    parser.add_argument(
        "--difficult",
        choices=("crowd", "keep", "drop"),
        default="crowd",
        help="objects marked difficult. crowd, the default: left out of evaluation, as VOC's own does, and with "
        "data.crowd=ignore out of training too; keep: like any other; drop: gone, and their place is background",
    )
    args = parser.parse_args()

    from data.formats.convert import write_splits
    from data.formats.voc import VocFolder
    from data.outside import outside_line

    with user_errors():
        voc = VocFolder(args.folder, args.output, args.exif)
        named = voc.image_sets()
        parts = complete_splits(named, lambda: voc.xml_files, args)
        splits = {split: voc.read(files, args.difficult) for split, files in parts.items()}
        paths = (image.path for images in splits.values() for image in images)
        if line := outside_line(args.folder, paths, args.inside_only):
            print(line)
        names = sorted({item.name for images in splits.values() for image in images for item in image.objects})
        lines = voc.tally.lines(args.folder, splits, voc.reason_left_out)
        reports = write_splits(args.output, splits, names, args.copy, args.overwrite)
        print_conversion(reports, names, lines, args.copy)


if __name__ == "__main__":
    main()
