"""Converts YOLO text labels to a data set in COCO format.

Reads data.yaml (class names, and the folders of train, val and test), the files of a Darknet export (obj.names,
obj.data), or classes.txt. Where these name no splits, folders called train and val or test are the splits; without
these too, the images are split at random, the same way for the same seed. An image without a label file has no objects.
Images are linked, not moved.

python scripts/yolo_to_coco.py exported --output datasets/mine
python scripts/yolo_to_coco.py labelled --output datasets/mine --val 0.2 --seed 1 --copy
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors
from engine.tools.conversion import add_conversion_options, complete_splits, print_conversion


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="YOLO_DIR", help="holds data.yaml, classes.txt or obj.names")
    add_conversion_options(parser)
    args = parser.parse_args()

    from data.formats.convert import write_splits
    from data.formats.yolo import YoloFolder
    from data.outside import outside_line

    with user_errors():
        yolo = YoloFolder(args.folder, args.output, args.exif)
        named = yolo.image_sets()
        parts = complete_splits(named, yolo.all_images, args)
        images = (image for images in parts.values() for image in images)
        if line := outside_line(args.folder, images, args.inside_only):
            print(line)
        splits = {split: yolo.read(images, split) for split, images in parts.items()}
        lines = yolo.tally.lines(args.folder, splits, yolo.reason_left_out)
        reports = write_splits(args.output, splits, yolo.class_names, args.copy, args.overwrite)
        print_conversion(reports, yolo.class_names, lines, args.copy)


if __name__ == "__main__":
    main()
