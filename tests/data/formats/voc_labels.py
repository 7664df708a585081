"""Labels in VOC's format, written and read for a test."""

from pathlib import Path

from data.formats.voc import VocFolder


def voc_object(name="cat", box=(11, 21, 30, 40), difficult=None) -> str:
    corners = "".join(
        f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True) if v is not None
    )
    mark = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    part = "<part><name>ear</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    return f"<object><name> {name}</name><pose>x</pose>{mark}<bndbox>{corners}</bndbox>{part}</object>"


def read(root: Path, difficult="crowd"):
    folder = VocFolder(root)
    return folder.read(folder.xml_files, difficult)
