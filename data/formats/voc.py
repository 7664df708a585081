"""Pascal VOC annotations: an XML file per image, corners as 1-based pixel indices."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data.errors import DatasetError
from data.formats.convert import IMAGE_SUFFIXES, LabelledImage, LabelledObject, image_sizes

Difficult = Literal["crowd", "keep", "drop"]
SPLITS = ("train", "val", "test")


class VocFolder:
    """Annotations/*.xml, JPEGImages/ and ImageSets/Main/*.txt; or XML files and images side by side in one folder.

    Raises:
        DatasetError: no XML file there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
        self.images = root / "JPEGImages" if (root / "JPEGImages").is_dir() else root
        self.xml_files = sorted(self.annotations.glob("*.xml"))
        if not self.xml_files:
            raise DatasetError(f"{self.annotations}: no .xml files; name the folder that holds Annotations/")

    def image_sets(self) -> dict[str, list[Path]]:
        """Split → XML files, as ImageSets/Main/{train,val,test}.txt list them; empty without such files.

        Raises:
            DatasetError: a name in a list has no XML file.
        """
        splits = {}
        for split in SPLITS:
            listing = self.root / "ImageSets" / "Main" / f"{split}.txt"
            if not listing.is_file():
                continue
            names = [line.split()[0] for line in listing.read_text().splitlines() if line.strip()]
            splits[split] = [self.annotations / f"{name}.xml" for name in names]
            for path in splits[split]:
                if not path.is_file():
                    raise DatasetError(f"{listing}: lists {path.stem}, and there is no {path}; remove it from the list")
        return splits

    def read(self, xml_files: Sequence[Path], difficult: Difficult) -> list[LabelledImage]:
        """The labelled images of some of the XML files.

        Args:
            difficult: what becomes of objects marked so: "crowd" regions, objects like any other ("keep"), or nothing.
        Raises:
            DatasetError: an XML file or its image cannot be used.
        """
        return [self._read_one(path, difficult) for path in xml_files]

    def _read_one(self, path: Path, difficult: Difficult) -> LabelledImage:
        try:
            tree = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path}: not valid XML ({error})") from error
        image_path = self._find_image(path, (tree.findtext("filename") or "").strip())
        objects = []
        for number, element in enumerate(tree.findall("object"), start=1):
            hard = (element.findtext("difficult") or "0").strip() == "1"
            if hard and difficult == "drop":
                continue
            name = (element.findtext("name") or "").strip()
            try:
                corners = [float(element.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            except ValueError:
                corners = []
            if not name or not corners:
                problem = "no bndbox of four numbers" if name else "no name"
                raise DatasetError(f"{path}: object {number} has {problem}; mend or remove it")
            # pixel indices from 1, both corners included: the edges are one pixel further left and up
            box = (corners[0] - 1, corners[1] - 1, corners[2], corners[3])
            objects.append(LabelledObject(name, box, crowd=hard and difficult == "crowd"))
        return LabelledImage(image_path, image_path.name, self._size(path, tree, image_path), objects)

    def _find_image(self, xml_file: Path, file_name: str) -> Path:
        # by the XML file's own name first: <filename> is often that of another machine or an earlier name
        candidates = [self.images / f"{xml_file.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
        candidates += [path.with_suffix(path.suffix.upper()) for path in candidates]
        if file_name:
            candidates.append(self.images / Path(file_name).name)
        for path in candidates:
            if path.is_file():
                return path
        raise DatasetError(f"{xml_file}: no image {xml_file.stem}.* in {self.images}; put it there or remove the file")

    def _size(self, path: Path, tree: ElementTree.Element, image_path: Path) -> tuple[int, int]:
        """The file's own size; turned by its EXIF tag if the annotation's size says that the annotator saw it so."""
        stored, turned = image_sizes(image_path)
        try:
            height, width = (int(tree.findtext(f"size/{side}", "0")) for side in ("height", "width"))
        except ValueError:
            height, width = 0, 0
        if not (height and width) or (height, width) == stored:
            return stored
        if (height, width) == turned:
            return turned
        raise DatasetError(
            f"{path}: says that the image is {width}×{height}, and {image_path.name} is {stored[1]}×{stored[0]}; "
            "put the right image there, or mend <size> if the boxes fit"
        )
