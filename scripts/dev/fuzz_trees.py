"""Hostile folders in the formats that are converted, and what the converters must leave alone."""

import io
import os
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st

SCRIPTS = Path(__file__).resolve().parent.parent
INPUT, OUTPUT = "given", "converted"
XML = """<annotation><filename>a.png</filename><size><width>24</width><height>16</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>
</object><object><name>dog</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>20</xmax><ymax>12</ymax></bndbox></object>
</annotation>"""
DESCRIPTION = "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]\n"
LABELS = "0 0.5 0.5 0.25 0.5\n1 0.25 0.5 0.1 0.1\n"

Tree = dict[str, bytes]  # file below INPUT -> its content


def text_with(original: str, words: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """The text with up to three of its words replaced."""
    pieces = original.replace("<", " <").replace(">", "> ").split(" ")

    def replaced(changes: dict[int, str]) -> bytes:
        return " ".join(changes.get(i, piece) for i, piece in enumerate(pieces)).encode(errors="surrogatepass")

    return st.dictionaries(st.integers(0, len(pieces) - 1), words, max_size=3).map(replaced)


def voc_trees(
    damaged: Callable[[bytes], st.SearchStrategy[bytes]], words: st.SearchStrategy[str], image: bytes
) -> st.SearchStrategy[Tree]:
    """Folders of Pascal VOC, each file as it should be, changed, damaged or missing."""
    annotation = st.one_of(text_with(XML, words), damaged(XML.encode()), damaged(XML.encode("utf-16")))
    lines = st.lists(st.one_of(st.sampled_from(["a", "b", "a 1", "b -1"]), words), max_size=4)
    image_list = lines.map(lambda names: "\n".join(names).encode(errors="surrogatepass"))
    picture = st.one_of(st.just(image), damaged(image))
    return st.fixed_dictionaries(
        {"Annotations/a.xml": annotation},
        optional={
            "Annotations/b.xml": annotation,
            "Annotations/deep/c.xml": annotation,
            "JPEGImages/a.png": picture,
            "JPEGImages/b.png": picture,
            "ImageSets/Main/train.txt": image_list,
            "ImageSets/Main/val.txt": image_list,
            "ImageSets/Main/trainval.txt": image_list,
        },
    )


def yolo_trees(
    damaged: Callable[[bytes], st.SearchStrategy[bytes]], words: st.SearchStrategy[str], image: bytes
) -> st.SearchStrategy[Tree]:
    """Folders of YOLO text labels, with data.yaml, classes.txt or Darknet's files."""
    labels = st.one_of(text_with(LABELS, words), damaged(LABELS.encode()), st.just(b""))
    description = st.one_of(st.just(DESCRIPTION.encode()), text_with(DESCRIPTION, words), damaged(DESCRIPTION.encode()))
    lines = st.lists(st.one_of(st.sampled_from(["images/train/a.png", "cat", "dog", "train = train.txt"]), words))
    some_lines = lines.map(lambda names: "\n".join(names).encode(errors="surrogatepass"))
    picture = st.one_of(st.just(image), damaged(image))
    return st.fixed_dictionaries(
        {"images/train/a.png": picture},
        optional={
            "data.yaml": description,
            "classes.txt": some_lines,
            "obj.names": some_lines,
            "obj.data": some_lines,
            "train.txt": some_lines,
            "labels/train/a.txt": labels,
            "images/val/b.png": picture,
            "images/val/b.txt": labels,
        },
    )


def convert(script: str, folder: Path) -> None:
    """Runs a converter on folder/INPUT. Raises what escapes it, or AssertionError where it does wrong otherwise."""
    before = _contents(folder)
    said = io.StringIO()
    line = [script, str(folder / INPUT), "--output", str(folder / OUTPUT), "--copy"]
    with patch.object(sys, "argv", line), redirect_stdout(io.StringIO()), redirect_stderr(said):
        try:
            runpy.run_path(str(SCRIPTS / script))["main"]()
        except SystemExit as end:
            errors = [text for text in said.getvalue().splitlines() if text.startswith("error: ")]
            assert end.code in (1, 2) and len(errors) == 1, f"status {end.code}: {said.getvalue()!r}"
    after = _contents(folder)
    touched = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    outside = [path for path in touched if Path(path).parts[0] != OUTPUT]
    assert not outside, f"touched outside of the output folder: {outside}"


def _contents(folder: Path) -> dict[str, bytes]:
    """Path below the folder -> content of the file, or where the link leads."""
    paths = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    return {
        str(path.relative_to(folder)): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in paths
    }
