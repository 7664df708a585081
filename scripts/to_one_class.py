"""Makes a data set whose objects are all of one class from one in COCO format: does a detector find them, names aside?

Of every split of the folder, or those given, it writes the annotations with one category; the images are links to the
folders of the original. Boxes, areas and crowd regions stay as they are.

python scripts/to_one_class.py datasets/muscima --output datasets/muscima_one_class --name symbol
python scripts/to_one_class.py datasets/mine --split train --split val --output datasets/mine_one_class
"""

import sys
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

    from data.coco_document import usable_document
    from data.counts import counted
    from data.errors import DatasetError
    from data.formats.coco import write_documents

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
        parts = {split: (document, args.root / split) for split, document in documents.items()}
        written = write_documents(args.output, parts, [args.root / file for file in files.values()], args.overwrite)
        for split, document in documents.items():
            objects = counted(len(document["annotations"]), "object")
            print(f"{split}: {counted(len(document['images']), 'image')}, {objects}, {written[split]}")


if __name__ == "__main__":
    main()
