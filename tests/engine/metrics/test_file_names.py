"""Results that name their images: ids by file name, and contradictions that are refused."""

import json

import numpy as np
import pytest

from engine.metrics import DetectionsError
from engine.metrics.coco_metrics import evaluate
from engine.metrics.file_names import ImagesByName

NAMES = {7: "a.jpg", 3: "b.jpg", 5: "sub/a.jpg", 9: "x/c.jpg", 8: "y/c.jpg"}
TRUTH = {
    "images": [{"id": key, "file_name": name, "width": 50, "height": 50} for key, name in NAMES.items()],
    "categories": [{"id": 2, "name": "cat"}, {"id": 4, "name": "dog"}],
    "annotations": [
        {"id": key, "image_id": key, "category_id": 2, "bbox": [key, key, 20, 20], "area": 400} for key in NAMES
    ],
}


def result(key: int, **more: object) -> dict:
    """A detection that is right in the image of that id."""
    return {"category_id": 2, "bbox": [key, key, 20, 20], "score": 0.5 + key / 100} | more


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("a.jpg", [7]),
        ("/data/val/a.jpg", [7]),
        ("c.jpg", [9, 8]),
        ("z/c.jpg", [9, 8]),
        ("z/y/c.jpg", [8]),
        ("sub/a.jpg", [5]),
        ("./x/sub//a.jpg", [5]),
        ("x\\sub\\a.jpg", [5]),
        ("b.jpg", [3]),
        ("B.jpg", []),
        ("b", []),
        ("", []),
    ],
)
def test_names_are_compared_from_their_end(name, ids):
    assert ImagesByName(TRUTH["images"]).find(name) == ids


def test_names_that_many_images_end_in_are_found_at_once(monkeypatch):
    images = ImagesByName({"id": number, "file_name": f"seq{number}/000001.jpg"} for number in range(50))
    monkeypatch.setattr("engine.metrics.file_names._num_shared", lambda *_: pytest.fail("compares with others"))
    assert images.find("seq7/000001.jpg") == [7]


def test_images_are_found_by_their_names():
    results = [result(5, file_name="photos/sub/a.jpg"), result(3, file_name="b.jpg")]
    by_id = [result(5, image_id=5), result(3, image_id=3)]
    metrics = evaluate(TRUTH, results)
    assert metrics == evaluate(TRUTH, by_id)
    assert metrics["AP50"] == pytest.approx(41 / 101)  # two of five objects: recalls 0, 0.01, ..., 0.4


def test_ids_and_names_that_agree():
    results = [result(7, image_id=7, file_name="val/a.jpg"), result(3, image_id=3, category_name="cat")]
    assert evaluate(TRUTH, results) == evaluate(TRUTH, [result(7, image_id=7), result(3, image_id=3)])


def test_a_category_id_of_numpy_is_compared_with_its_name_too():
    with pytest.raises(DetectionsError, match="has category_id 2 and category_name 'dog'"):
        evaluate(TRUTH, [result(7, image_id=7, category_id=np.int64(2), category_name="dog")])


def test_names_are_not_asked_for_where_the_annotations_have_none():
    truth = TRUTH | {"images": [{"id": key} for key in NAMES]}
    assert evaluate(truth, [result(7, image_id=7, file_name="x.jpg")])["AP"] > 0
    with pytest.raises(DetectionsError, match="which no image of annotations has"):
        evaluate(truth, [result(7, file_name="a.jpg")])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (result(3, image_id=1, file_name="b.jpg"), "image_id 1 and file_name 'b.jpg', which is image 3"),
        (result(3, image_id=7, file_name="b.jpg"), "image_id 7 and file_name 'b.jpg', which is image 3"),
        (result(3, file_name="d.jpg"), "file_name 'd.jpg', which no image"),
        (result(3, image_id=3, file_name="d.jpg"), "file_name 'd.jpg', which no image"),
        (result(9, file_name="c.jpg"), "may be any of the images [9, 8]"),
        (result(3, file_name="b.jpg", frame=2, seconds=0.1), "frame 2 of 'b.jpg'"),
        (result(3, image_id=3, category_name="dog"), "category_name 'dog', but that category of annotations is 'cat'"),
    ],
)
def test_contradictions_are_refused_with_their_place(wrong, named):
    with pytest.raises(DetectionsError) as refused:
        evaluate(TRUTH, [result(3, image_id=3), wrong])
    assert str(refused.value).startswith("detections: detection 1 ") and named in str(refused.value)


def test_two_files_are_not_one_image():
    with pytest.raises(DetectionsError, match=r"'y/b\.jpg', earlier ones of 'x/b\.jpg', and both are image 3"):
        evaluate(TRUTH, [result(3, file_name="x/b.jpg"), result(3, file_name="y/b.jpg")])


def test_from_files(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "results.json").write_text(json.dumps([result(3, image_id=5, file_name="b.jpg")]))
    with pytest.raises(DetectionsError, match=r"results\.json: detection 0 has image_id 5 .* image 3 of .*truth\.json"):
        evaluate(tmp_path / "truth.json", tmp_path / "results.json")
