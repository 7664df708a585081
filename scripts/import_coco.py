"""Brings COCO files, as labelling tools export them, into the layout that train.py reads.

A folder with a file for each split keeps its splits: by the files' names (instances_train2017.json) or their folders
(valid/_annotations.coco.json). A single file is split at random, the same way for the same seed. Annotations stay as
they are, with their ids, areas and masks; images are links to the original ones, or to their folders.

python scripts/import_coco.py exported --output datasets/mine
python scripts/import_coco.py labels.json --images photos --output datasets/mine --val 0.2 --test 0.1 --seed 1
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors
from engine.tools.conversion import add_split_options, complete_splits


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="FILE_OR_DIR", help="COCO file, or folder that holds some")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images (default: looked for)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the new data set")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier call wrote there")
    add_split_options(parser)
    args = parser.parse_args()

    from data.counts import counted
    from data.formats.coco import read_exports, write_documents
    from data.formats.split_folders import SPLIT_NAMES

    with user_errors():
        exports, notes = read_exports(args.source, args.images, args.output)
        by_split = {each.split: each for each in exports if each.split is not None}
        named = {split: by_split[split].file_names() for split in SPLIT_NAMES if split in by_split}
        splits = complete_splits(named, exports[0].file_names, args)
        source_of = {split: by_split.get(split) or by_split.get("train") or exports[0] for split in splits}
        parts = {split: (source_of[split].part(names), source_of[split].folder) for split, names in splits.items()}
        files = write_documents(args.output, parts, [each.file for each in exports], args.overwrite)
        for split, (document, _) in parts.items():
            images, objects = counted(len(document["images"]), "image"), counted(len(document["annotations"]), "object")
            print(f"{split}: {images}, {objects}, {files[split]}")
        names = [category["name"] for category in exports[0].document["categories"]]
        print(f"{counted(len(names), 'class')}: {', '.join(names)}", *notes, sep="\n")
        print("the images are links: keep the original folder")


if __name__ == "__main__":
    main()
