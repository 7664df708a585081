"""Checks data before training: every problem with counts, sizes, classes and anchors, metrics that will be -1.

python scripts/check_dataset.py --config configs/r50_alrp.yaml data.root=datasets/coco
python scripts/check_dataset.py --root datasets/mine --split train --split val --picture sizes.png

Exit status: 0 nothing found, 1 problems found, 2 bad usage or a file that is no COCO annotation file at all.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, log_to_console, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="experiment whose data, image size and anchors to check")
    parser.add_argument("--root", metavar="DIR", help="folder of the data set, instead of data.root")
    parser.add_argument("--split", metavar="NAME", action="append", help="a split, instead of the config's; repeatable")
    parser.add_argument("--picture", metavar="OUT.png", type=Path, help="draw sizes, classes and anchors there")
    parser.add_argument("--no-images", action="store_true", help="look at the annotations only, not at the image files")
    parser.add_argument("--inside-only", action="store_true", help="refuse images outside of the data set's folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config values, such as data.image_size=512")
    args = parser.parse_intermixed_args()
    if args.config is None and (args.root is None or args.split is None):
        parser.error("give --config FILE, or --root DIR and --split NAME")

    from data import CocoDetection
    from data.output_folder import refuse_inputs, require_writable
    from engine.run.config import load_config, parse_config
    from engine.run.datasets import training_resize
    from engine.run.stretch import stretch_note
    from engine.tools.dataset_check import check_split, reasons_not_to_combine, training_refusals
    from engine.tools.dataset_report import draw_report, format_split

    log_to_console(is_main=False)  # the report says what reading the data would warn of
    with user_errors():
        require_writable([args.picture])
        config = load_config(args.config, args.overrides) if args.config else parse_config({}, "", args.overrides)
        data, resize = config.data, training_resize(config.data)
        splits = args.split or [name for name in (data.train_split, data.val_split, data.test_split) if name]
        datasets, reports, inputs = {}, {}, [args.config] if args.config else []
        for split in dict.fromkeys(splits):
            datasets[split] = CocoDetection(
                args.root or data.root,
                split,
                classes=data.classes,
                on_error="skip",
                exif=data.exif,
                inside_only=data.inside_only or args.inside_only,
            )
            inputs += [datasets[split].annotation_file, *map(datasets[split].path, range(len(datasets[split])))]
            reports[split] = check_split(datasets[split], config.model, resize, not args.no_images)
            training = split == data.train_split
            if args.config and (note := stretch_note(datasets[split], config, training)) is not None:
                reports[split].notes.append(note)
            print(format_split(str(datasets[split].annotation_file), reports[split], resize), end="\n\n")
        together = reasons_not_to_combine(datasets, reports)
        if args.config and data.train_split in datasets:
            together += training_refusals(config, datasets[data.train_split])
        for line in together:
            print(f"{line}\n")
        if args.picture:
            refuse_inputs([args.picture], inputs)
            draw_report(args.picture, reports, config.model)
    return 1 if together or any(report.problems for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
