"""Options, random splits and closing lines of the scripts that convert labels to COCO format."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data.counts import counted
from data.formats.convert import SplitReport, split_at_random

SHOWN = 5  # names of dropped boxes


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """--output, --overwrite and --copy."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the new data set")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier conversion wrote there")
    parser.add_argument("--copy", action="store_true", help="copy the images instead of linking to them")


def add_conversion_options(parser: argparse.ArgumentParser) -> None:
    """What is written where, how labels are read, and how to split at random."""
    add_output_options(parser)
    parser.add_argument(
        "--exif",
        choices=("turn", "ignore"),
        default="turn",
        help="ignore: labels were drawn on images without the turn that EXIF asks for; train with data.exif=ignore",
    )
    parser.add_argument("--inside-only", action="store_true", help="refuse images outside of the folder")
    add_split_options(parser)


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """--val, --test and --seed of a random split."""
    parser.add_argument("--val", type=float, default=0.2, metavar="SHARE", help="of a random split (default: 0.2)")
    parser.add_argument("--test", type=float, default=0.0, metavar="SHARE", help="of a random split (default: 0)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of a random split (default: 0)")


def complete_splits(
    named: dict[str, list[Path]], every: Callable[[], Sequence[Path]], args: argparse.Namespace
) -> dict[str, list[Path]]:
    """The splits that the data name; drawn as --val, --test and --seed ask for where these name none, and so is val
    where they name train and no val. A line says what is drawn.

    Args:
        every: gives all there is to split.
    Raises:
        DatasetError: as `split_at_random`.
    """
    if not named:
        splits = split_at_random(every(), {"val": args.val, "test": args.test}, args.seed)
        print(f"split at random: --val {args.val:g} --test {args.test:g} --seed {args.seed}")
        return splits
    if "train" in named and "val" not in named and args.val:
        named = named | split_at_random(named["train"], {"val": args.val}, args.seed)
        print(f"val drawn at random from train, as nothing is called so: --val {args.val:g} --seed {args.seed}")
    return named


def print_conversion(
    reports: Mapping[str, SplitReport], class_names: Sequence[str], file_lines: Sequence[str], copied: bool
) -> None:
    """Prints what was written and what was left out.

    Args:
        file_lines: of `FileTally`.
    """
    for split, report in reports.items():
        crowds = f" and {counted(report.crowds, 'crowd region')}" if report.crowds else ""
        images, objects = counted(report.images, "image"), counted(report.objects, "object")
        print(f"{split}: {images}, {objects}{crowds}, {report.annotation_file}")
    print(f"{counted(len(class_names), 'class')}: {', '.join(class_names)}")
    dropped = [name for report in reports.values() for name in report.dropped]
    if dropped:
        more = ", …" if len(dropped) > SHOWN else ""
        boxes = (
            "1 box without area in its image was" if len(dropped) == 1 else f"{len(dropped)} boxes without area were"
        )
        print(f"{boxes} left out: {', '.join(dropped[:SHOWN])}{more}")
    print("\n".join(file_lines))
    if not copied:
        print("the images are links: keep the original folder, or convert with --copy")
