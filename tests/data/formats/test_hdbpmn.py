"""hdBPMN as its repository lays it out: a BPMN file for each drawing, boxes apart from what they are boxes of."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.hdbpmn_to_coco import CLASSES, main

DRAWING = """<?xml version="1.0" encoding="UTF-8"?>
<!-- {"backgroundSize":1000} -->
<definitions xmlns="urn:model" xmlns:bpmndi="urn:bpmndi" xmlns:omgdc="urn:dc" xmlns:di="urn:di">
  <collaboration id="C"><participant id="pool" processRef="P" /></collaboration>
  <process id="P">
    <laneSet id="L"><lane id="lane"><childLaneSet id="LL"><lane id="inner" /></childLaneSet></lane></laneSet>
    <task id="do" name="do it" />
    <startEvent id="begin" />
    <startEvent id="mail"><messageEventDefinition id="M" /></startEvent>
    <intermediateCatchEvent id="wait"><timerEventDefinition id="T" /></intermediateCatchEvent>
    <endEvent id="stop"><terminateEventDefinition id="E" /></endEvent>
    <endEvent id="signal"><signalEventDefinition id="S" /></endEvent>
    <complexGateway id="rare" />
    <sequenceFlow id="F" sourceRef="begin" targetRef="do" />
  </process>
  <bpmndi:BPMNDiagram id="D"><bpmndi:BPMNPlane id="Q" bpmnElement="C">
    {shapes}
    <bpmndi:BPMNEdge id="F_di" bpmnElement="F"><di:waypoint x="1" y="1" /></bpmndi:BPMNEdge>
  </bpmndi:BPMNPlane></bpmndi:BPMNDiagram>
</definitions>
"""
SHAPE = """<bpmndi:BPMNShape id="{0}_di" bpmnElement="{0}"><omgdc:Bounds x="{1}" y="{2}" width="{3}" height="{4}" />
<bpmndi:BPMNLabel><omgdc:Bounds x="5" y="5" width="5" height="5" /></bpmndi:BPMNLabel></bpmndi:BPMNShape>"""
NAMES = ("pool", "lane", "inner", "do", "begin", "mail", "wait", "stop", "signal", "rare")


@pytest.fixture
def drawings(tmp_path) -> Path:
    """Three drawings of 500×400 pixels, whose boxes are those of an image of width 1000."""
    root = tmp_path / "data"
    (root).mkdir()
    (root / "writer_split.csv").write_text("writer,split\nwriter0001,train\nwriter0065,val\nwriter0088,test\n")
    shapes = "\n".join(SHAPE.format(name, 10 * place, 20, 100, 60.5) for place, name in enumerate(NAMES))
    for writer in ("0001", "0065", "0088"):
        for kind in ("annotations", "images"):
            (root / kind / "ex00").mkdir(parents=True, exist_ok=True)
        Image.new("L", (500, 400), 255).save(
            root / f"images/ex00/ex00_writer{writer}.{'png' if writer == '0065' else 'jpg'}"
        )
        text = DRAWING.replace("{shapes}", shapes)
        (root / f"annotations/ex00/ex00_writer{writer}.bpmn").write_text(text)
    return root


def convert(monkeypatch, root: Path, output: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["hdbpmn_to_coco.py", str(root), "--output", str(output)])
    main()


def test_shapes_get_their_class_and_their_box_in_pixels_of_the_image(drawings, tmp_path, monkeypatch, capsys):
    convert(monkeypatch, drawings, tmp_path / "out")
    document = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert tuple(names.values()) == CLASSES
    found = [(names[shape["category_id"]], shape["bbox"]) for shape in document["annotations"]]
    expected = [
        *("participant", "lane", "lane", "task", "startEvent"),
        *("messageStartEvent", "timerIntermediateCatchEvent", "terminateEndEvent", "endEvent"),
    ]
    assert found == [(name, [5 * place, 10, 50, 30.25]) for place, name in enumerate(expected)]
    out = capsys.readouterr().out
    assert "train: 1 image, 9 objects" in out
    assert "shapes of other classes, left out: 3 complexGateway" in out


def test_the_split_is_that_of_the_writer(drawings, tmp_path, monkeypatch):
    convert(monkeypatch, drawings, tmp_path / "out")
    for split, name in (
        ("train", "ex00_writer0001.jpg"),
        ("val", "ex00_writer0065.png"),
        ("test", "ex00_writer0088.jpg"),
    ):
        document = json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())
        assert [(image["file_name"], image["width"], image["height"]) for image in document["images"]] == [
            (name, 500, 400)
        ]
        assert (tmp_path / "out" / split / name).resolve() == drawings / "images/ex00" / name


@pytest.mark.parametrize(
    ("wanted", "instead", "message"),
    [
        ('{"backgroundSize":1000}', "{}", "no backgroundSize"),
        ('"backgroundSize":1000', '"backgroundSize":0', "not an annotation of hdBPMN"),
        ('bpmnElement="do"', 'bpmnElement="nobody"', "nobody"),
        ('x="30"', 'x="far"', "far"),
        ("</definitions>", "", "not an annotation of hdBPMN"),
    ],
)
def test_a_file_that_is_no_annotation_is_named(drawings, tmp_path, monkeypatch, capsys, wanted, instead, message):
    path = drawings / "annotations/ex00/ex00_writer0088.bpmn"
    assert wanted in path.read_text()
    path.write_text(path.read_text().replace(wanted, instead))
    refused(drawings, tmp_path, monkeypatch, capsys, "ex00_writer0088.bpmn", message)


def test_a_drawing_without_image_or_split_is_named(drawings, tmp_path, monkeypatch, capsys):
    (drawings / "images/ex00/ex00_writer0088.jpg").rename(drawings / "elsewhere.jpg")
    refused(drawings, tmp_path, monkeypatch, capsys, "ex00_writer0088.bpmn", "0 images")
    (drawings / "writer_split.csv").write_text("writer,split\nwriter0001,train\n")
    refused(drawings, tmp_path, monkeypatch, capsys, "ex00_writer0065.bpmn", "has no split of its writer")


def refused(drawings, tmp_path, monkeypatch, capsys, *parts: str) -> None:
    with pytest.raises(SystemExit):
        convert(monkeypatch, drawings, tmp_path / "out")
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and all(part in error for part in parts), error
    assert not (tmp_path / "out").exists()
