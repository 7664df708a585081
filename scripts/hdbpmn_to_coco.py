"""Converts hdBPMN, photographs and scans of hand-drawn process diagrams, to a data set in COCO format.

Reads data/ of a clone of github.com/dwslab/hdBPMN (tag v1.0.0): annotations/<exercise>/*.bpmn, images/ and
writer_split.csv, which says the split of each writer. Objects are the shapes of 19 classes, without arrows and labels;
an event with a message, a timer or a terminate definition is of a class of its own.

python scripts/hdbpmn_to_coco.py hdBPMN/data --output datasets/hdbpmn
python scripts/hdbpmn_to_coco.py hdBPMN/data --output datasets/hdbpmn --overwrite --copy
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.errors import DatasetError
from data.formats.convert import LabelledImage, LabelledObject, image_sizes, write_splits
from data.text_files import read_lines, read_text
from engine.run.cli import ArgumentParser, user_errors
from engine.tools.conversion import add_output_options, print_conversion

CLASSES = (  # those with 40 shapes or more
    *("task", "exclusiveGateway", "participant", "endEvent", "dataObjectReference", "lane", "parallelGateway"),
    *("messageStartEvent", "messageIntermediateCatchEvent", "startEvent", "timerIntermediateCatchEvent"),
    *("messageIntermediateThrowEvent", "dataStoreReference", "messageEndEvent", "textAnnotation", "eventBasedGateway"),
    *("subProcess", "timerStartEvent", "terminateEndEvent"),
)
DEFINITIONS = ("message", "timer", "terminate")
SPLITS = ("train", "val", "test")


def labelled_images(root: Path) -> dict[str, list[LabelledImage]]:
    """Split -> its images, with all their shapes. Raises DatasetError."""
    table = root / "writer_split.csv"
    split_of = {writer: split for writer, _, split in (line.partition(",") for line in read_lines(table))}
    splits: dict[str, list[LabelledImage]] = {split: [] for split in SPLITS}
    for path in sorted((root / "annotations").glob("*/*.bpmn")):
        split = split_of.get(path.stem.partition("_")[2], "").strip()
        if split not in splits:
            raise DatasetError(f"{path}: {table} has no split of its writer, train, val or test; add the line")
        splits[split].append(_labelled_image(path, root / "images" / path.parent.name))
    return splits


def _labelled_image(path: Path, folder: Path) -> LabelledImage:
    found = sorted(folder.glob(f"{path.stem}.*"))
    if len(found) != 1:
        raise DatasetError(f"{path}: {len(found)} images {folder / path.stem}.*, not one; mend that or remove the file")
    text, (_, size) = read_text(path), image_sizes(found[0])
    width = re.search(r'"backgroundSize":\s*([\d.]*\d)', text)  # of the image when its shapes were drawn
    try:
        if width is None:
            raise ValueError("no backgroundSize in its comment")
        objects = list(_shapes(ElementTree.fromstring(text), size[1] / float(width[1])))
    except (ElementTree.ParseError, ValueError, KeyError, ZeroDivisionError) as error:
        raise DatasetError(f"{path}: not an annotation of hdBPMN ({error}); mend or remove it") from error
    return LabelledImage(found[0], found[0].name, size, objects)


def _shapes(tree: ElementTree.Element, scale: float) -> Iterator[LabelledObject]:
    """The shapes of a diagram; a box is in another element than what it is the box of."""
    elements = {element.get("id"): element for element in tree.iter()}
    for shape in tree.iterfind(".//{*}BPMNShape"):
        (bounds,) = shape.findall("{*}Bounds")  # that of its label lies deeper
        x, y, width, height = (scale * float(bounds.attrib[key]) for key in ("x", "y", "width", "height"))
        yield LabelledObject(_class_of(elements[shape.attrib["bpmnElement"]]), (x, y, x + width, y + height))


def _class_of(element: ElementTree.Element) -> str:
    name = element.tag.rpartition("}")[2]
    for kind in DEFINITIONS if name.endswith("Event") else ():
        if element.find(f"{{*}}{kind}EventDefinition") is not None:
            return f"{kind}{name[0].upper()}{name[1:]}"
    return name


def _of_classes(image: LabelledImage) -> LabelledImage:
    return replace(image, objects=[shape for shape in image.objects if shape.name in CLASSES])


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DATA", help="folder that holds annotations/ and images/")
    add_output_options(parser)
    args = parser.parse_args()
    with user_errors():
        splits = labelled_images(args.folder)
        names = Counter(shape.name for images in splits.values() for image in images for shape in image.objects)
        others = [f"{count} {name}" for name, count in names.most_common() if name not in CLASSES]
        kept = {split: [_of_classes(image) for image in images] for split, images in splits.items()}
        reports = write_splits(args.output, kept, CLASSES, args.copy, args.overwrite)
        lines = [f"shapes of other classes, left out: {', '.join(others)}"] if others else []
        print_conversion(reports, list(CLASSES), lines, args.copy)


if __name__ == "__main__":
    main()
