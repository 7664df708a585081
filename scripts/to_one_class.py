"""Makes a data set whose objects are all of one class from one in COCO format: does a detector find them, names aside?

Of every split of the folder, or those given, it writes the annotations with one category; the images are links to the
folders of the original. Boxes, areas and crowd regions stay as they are.

python scripts/to_one_class.py datasets/muscima --output datasets/muscima_one_class --name symbol
python scripts/to_one_class.py datasets/mine --split train --split val --output datasets/mine_one_class
"""

import json
import sys
from operator import methodcaller
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.run.cli import ArgumentParser, user_errors


def one_class(document: dict, name: str) -> dict:
    """The content of an annotation file with all objects in one category of this name."""
    annotations = [{**each, "category_id": 1} for each in document["annotations"]]
    return {**document, "annotations": annotations, "categories": [{"id": 1, "name": name}]}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the data set")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the new data set")
    parser.add_argument("--split", action="append", metavar="NAME", help="a split, instead of all; repeatable")
    parser.add_argument("--name", default="object", metavar="CLASS", help="name of the class (default: object)")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier call wrote there")
    args = parser.parse_args()

    from data.annotations import usable_document
    from data.counts import counted
    from data.errors import DatasetError
    from data.files import write_atomically
    from data.formats.convert import place
    from data.output_folder import OutputFolder

    with user_errors():
        found = sorted((args.root / "annotations").glob("instances_*.json"))
        splits = args.split or [path.stem.partition("_")[2] for path in found]
        if not splits:
            raise DatasetError(
                f"{args.root / 'annotations'}: no instances_<split>.json; name the folder that holds them"
            )
        files = {split: f"annotations/instances_{split}.json" for split in splits}
        documents = {split: one_class(usable_document(args.root / file), args.name) for split, file in files.items()}
        for split in splits:
            if not (args.root / split).is_dir():
                raise DatasetError(
                    f"{args.root / split}: no such image folder; name the splits that have one by --split"
                )
        folder, inputs = OutputFolder(args.output), [args.root / file for file in files.values()]
        folder.claim([*files.values(), *splits], inputs, args.overwrite)
        for split, document in documents.items():
            text = json.dumps(document).encode()
            write_atomically(args.output / files[split], methodcaller("write", text))
            place(args.root / split, args.output / split, copy=False)
            objects = counted(len(document["annotations"]), "object")
            print(f"{split}: {counted(len(document['images']), 'image')}, {objects}, {args.output / files[split]}")


if __name__ == "__main__":
    main()
