"""scripts/to_one_class.py: all that is annotated stays, but for the names."""

import json
import sys
from pathlib import Path

import pytest

from data import CocoDetection
from scripts.to_one_class import main


@pytest.fixture
def call(monkeypatch, capsys):
    """call(arguments …) -> what it printed."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["to_one_class.py", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def root(tmp_path, write_coco) -> Path:
    annotations = [(0, 1, [1, 2, 10, 12]), (0, 2, [1, 2, 10, 12]), (1, 2, [3, 4, 5, 6])]
    root = write_coco(annotations, sizes=[(40, 40)] * 3)
    path = root / "annotations/instances_train.json"
    document = json.loads(path.read_text())
    document["annotations"][2] |= {"iscrowd": 1, "area": 7.5}
    path.write_text(json.dumps(document))
    return root


def test_objects_stay_and_their_names_go(call, root, tmp_path):
    before = (root / "annotations/instances_train.json").read_text()
    assert call(root, "--output", tmp_path / "one", "--name", "symbol").startswith("train: 3 images, 3 objects, ")
    old, new = (
        json.loads((each / "annotations/instances_train.json").read_text()) for each in (root, tmp_path / "one")
    )
    assert (root / "annotations/instances_train.json").read_text() == before and len(old["categories"]) > 1
    assert new["categories"] == [{"id": 1, "name": "symbol"}] and new["images"] == old["images"]
    assert new["annotations"] == [{**each, "category_id": 1} for each in old["annotations"]]
    dataset = CocoDetection(tmp_path / "one", "train")
    assert (
        dataset.class_names == ["symbol"] and (dataset[0][1]["labels"] == 0).all() and len(dataset[0][1]["boxes"]) == 2
    )


def test_nothing_is_replaced_unless_it_was_made_here(call, root, tmp_path, capsys):
    call(root, "--output", tmp_path / "one")
    with pytest.raises(SystemExit):
        call(root, "--output", tmp_path / "one")
    assert "--overwrite" in capsys.readouterr().err
    call(root, "--output", tmp_path / "one", "--overwrite", "--name", "other")
    assert CocoDetection(tmp_path / "one", "train").class_names == ["other"]
    with pytest.raises(SystemExit):
        call(root, "--output", root, "--overwrite")
    assert CocoDetection(root, "train").class_names != ["object"]


@pytest.mark.parametrize("missing", ["data set", "split", "images", "image of an object"])
def test_what_is_not_there_is_one_line(call, root, tmp_path, capsys, missing):
    where = tmp_path / "nowhere" if missing == "data set" else root
    if missing == "images":
        (root / "train").rename(root / "elsewhere")
    if missing == "image of an object":
        path = root / "annotations/instances_train.json"
        path.write_text(path.read_text().replace('"image_id": 20', '"image_id": 21'))
    with pytest.raises(SystemExit):
        call(where, "--output", tmp_path / "one", *(["--split", "val"] if missing == "split" else []))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and not (tmp_path / "one").exists()
