import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_sections import annotation, image, train_json
from pycocotools.coco import COCO

from data.annotations import read_annotations
from data.errors import DatasetError

FILES = [f"bccd/annotations/instances_{split}.json" for split in ("train", "val", "test")]
FILES += [f"coco_tiny/annotations/instances_{split}2017.json" for split in ("train", "val")]


@pytest.mark.parametrize("name", FILES)
def test_agrees_with_pycocotools(shared: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    path = shared / "data" / name
    coco, ours = COCO(str(path)), read_annotations(path)
    assert ours.category_ids == sorted(coco.getCatIds())
    assert ours.class_names == [coco.cats[i]["name"] for i in ours.category_ids]
    assert ours.image_ids.tolist() == coco.getImgIds()
    for index, image_id in enumerate(coco.getImgIds()):
        image = coco.imgs[image_id]
        assert ours.sizes[index].tolist() == [image["height"], image["width"]]
        assert ours.file_name(index) == image["file_name"]
        rows, labels, crowd = [], [], []
        for record in coco.loadAnns(coco.getAnnIds(imgIds=image_id)):
            x, y, w, h = record["bbox"]
            x1, x2 = (min(max(v, 0), image["width"]) for v in (x, x + w))
            y1, y2 = (min(max(v, 0), image["height"]) for v in (y, y + h))
            if w > 0 and h > 0 and x2 > x1 and y2 > y1:
                rows.append([x1, y1, x2, y2])
                labels.append(ours.category_ids.index(record["category_id"]))
                crowd.append(bool(record["iscrowd"]))
        found = ours.objects(index)
        assert torch.equal(found["boxes"], torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))
        assert found["labels"].tolist() == labels
        assert found["crowd"].tolist() == crowd


def test_the_shared_sets_hold_what_their_readme_says(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    bccd = [read_annotations(shared / "data" / name) for name in FILES[:3]]
    assert sum(len(a.boxes) for a in bccd) == 4888 - 2
    assert sum(record.args[1] for record in caplog.records) == 2
    tiny = [read_annotations(shared / "data" / name) for name in FILES[3:]]
    assert sum(int(a.crowd.sum()) for a in tiny) == 17


def test_sparse_category_ids_become_labels_in_ascending_order(write_coco) -> None:
    root = write_coco(
        [(0, 90, [0, 0, 4, 4]), (0, 7, [1, 1, 4, 4])], categories={90: "toothbrush", 7: "train", 13: "sign"}
    )
    found = read_annotations(train_json(root))
    assert (found.category_ids, found.class_names) == ([7, 13, 90], ["train", "sign", "toothbrush"])
    assert found.objects(0)["labels"].tolist() == [2, 0]


def test_class_subset_keeps_the_order_of_ids_and_all_images(write_coco) -> None:
    annotations = [(0, 3, [0, 0, 4, 4]), (1, 1, [1, 1, 4, 4]), (0, 2, [2, 2, 4, 4])]
    root = write_coco(annotations, sizes=[(48, 64)] * 3, categories={1: "cat", 2: "dog", 3: "cow"})
    found = read_annotations(train_json(root), classes=["cow", "cat"])
    assert (found.category_ids, found.class_names) == ([1, 3], ["cat", "cow"])
    assert [found.objects(i)["labels"].tolist() for i in range(3)] == [[1], [0], []]


def test_boxes_are_clipped_and_stay_with_their_image(write_coco) -> None:
    # Given out of order, on 64×48 images: over the left border, over the lower right corner, inside.
    annotations = [(1, 1, [-5, 2, 10, 10]), (0, 2, [60, 40, 30, 30]), (1, 2, [1.5, 2.25, 3, 4])]
    found = read_annotations(train_json(write_coco(annotations, sizes=[(48, 64)] * 2)))
    assert found.objects(0)["boxes"].tolist() == [[60, 40, 64, 48]]
    assert found.objects(1)["boxes"].tolist() == [[0, 2, 5, 12], [1.5, 2.25, 4.5, 6.25]]


def test_boxes_without_area_are_dropped_with_one_warning(write_coco, caplog: pytest.LogCaptureFixture) -> None:
    nan, inf = float("nan"), float("inf")
    bad = [[5, 5, 0, 3], [5, 5, 3, -1], [64, 5, 3, 3], [-9, 5, 9, 3], [nan, 5, 3, 3], [5, 5, inf, 3], [63, 9, 1e-7, 5]]
    found = read_annotations(train_json(write_coco([(0, 1, box) for box in [[5, 5, 3, 3], *bad]])))
    assert found.boxes.tolist() == [[5, 5, 8, 8]]
    (record,) = caplog.records
    message = record.getMessage()
    assert "instances_train.json" in message
    assert "dropped: 7 (annotation 2, 3, 4, 5, 6, …)" in message


def test_objects_that_are_there_twice_are_counted_in_one_warning(write_coco, caplog) -> None:
    objects = [(0, 1, [5, 5, 3, 3]), (0, 2, [5, 5, 3, 3]), (0, 1, [5, 5, 3, 4]), (1, 1, [5, 5, 3, 3])]
    again = [(0, 1, [5.0, 5, 3, 3]), (1, 1, [5, 5, 3, 3])]
    found = read_annotations(train_json(write_coco(objects + again, sizes=[(48, 64)] * 2)))
    assert len(found.boxes) == 6
    (record,) = caplog.records
    assert record.getMessage().endswith("repeat another of the same image, class and box: 2 (annotation 5, 6)")


def test_dropped_boxes_of_classes_not_used_are_not_counted(write_coco, caplog: pytest.LogCaptureFixture) -> None:
    root = write_coco([(0, 1, [5, 5, 0, 3]), (0, 2, [5, 5, 3, 3])])
    assert len(read_annotations(train_json(root), classes=["dog"]).boxes) == 1
    assert not caplog.records


def test_a_file_without_objects_is_fine(write_coco) -> None:
    found = read_annotations(train_json(write_coco([], sizes=[(8, 8), (9, 9)])))
    assert found.objects(1)["boxes"].shape == (0, 4)
    assert found.box_offsets.tolist() == [0, 0, 0]


def test_an_object_costs_25_bytes_and_no_python_object(write_coco) -> None:
    few, many = (read_annotations(train_json(write_coco([(0, 1, [1, 2, 3, 4])] * n))) for n in (1, 1001))
    other = {key: value for key, value in vars(many).items() if not isinstance(value, np.ndarray | torch.Tensor)}
    assert {key: type(value) for key, value in other.items()} == {
        "class_names": list,
        "category_ids": list,
        "file_names": bytes,
    }
    assert {values.dtype.kind for values in vars(many).values() if isinstance(values, np.ndarray)} == {"i"}
    grown = len(pickle.dumps(many)) - len(pickle.dumps(few))
    assert 25_000 <= grown < 25_200  # 16 bytes of box, 8 of label, 1 of crowd


@pytest.mark.parametrize(
    "sections, words",
    [
        ({"images": None}, "not a COCO annotation file: it has no list 'images'"),
        ({"annotations": {}}, "it has no list 'annotations'"),
        ({"categories": None}, "it has no list 'categories'"),
        ({"images": []}, "'images' is empty"),
        ({"categories": []}, "'categories' is empty"),
        ({"images": [3]}, "images[0]: not an object"),
        ({"images": image(id="10")}, "images[0] (id 10): 'id' must be an integer"),
        ({"images": image(height=None)}, "images[0] (id 10): 'height' must be a positive integer"),
        ({"images": image(width=0)}, "'width' must be a positive integer"),
        ({"images": image() + image()}, "images[1] (id 10): id 10 occurs more than once"),
        ({"images": image(width=10**9)}, "(id 10): 1000000000×48 are more than 178956970 pixels"),
        ({"images": image(file_name="a\0.png")}, "(id 10): 'file_name' must be the path of a file"),
        ({"images": image(file_name="a/..")}, "(id 10): 'file_name' must be the path of a file"),
        ({"images": image(file_name="a/")}, "(id 10): 'file_name' must be the path of a file"),
        ({"images": [*image(id="1"), *image(id="2")]}, "(id 1): 'id' must be an integer"),
        ({"annotations": annotation(bbox=[0.1, 0.2, 0.3, 0.4])}, "no box is larger than a pixel"),
        (
            {"annotations": annotation(bbox=[0, 0, 1, 1]) + annotation(bbox=[0.5, 0, 0.5, 1])},
            "fractions of the image's",
        ),
        ({"annotations": annotation(bbox=[-0.005, 0.2, 0.3, 1.01])}, "fractions of the image's"),
        ({"categories": [{"id": 1}]}, "categories[0] (id 1): 'name' must be a string"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "categories[1] (id 1): id 1 occurs more than once; give each category its own id",
        ),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "two categories are named 'a'"),
        ({"annotations": [[]]}, "annotations[0]: not an object"),
        ({"annotations": annotation(image_id=11)}, "annotations[0] (id 77): unknown image_id, 11"),
        ({"annotations": annotation(category_id=3)}, "annotations[0] (id 77): unknown category_id, 3"),
        ({"annotations": annotation(bbox=[1, 2, 3])}, "annotations[0] (id 77): 'bbox' must be four numbers"),
        ({"annotations": annotation(bbox=[1, 2, 3, "4"])}, "(id 77): 'bbox' must be four numbers"),
        ({"annotations": annotation(bbox=[1, 2, 3, True])}, "(id 77): 'bbox' must be four numbers"),
        ({"annotations": annotation(iscrowd="0")}, "(id 77): 'iscrowd' must be 0 or 1"),
        ({"annotations": annotation(iscrowd=2)}, "(id 77): 'iscrowd' must be 0 or 1"),
        ({"annotations": annotation(iscrowd=[])}, "(id 77): 'iscrowd' must be 0 or 1"),
        ({"annotations": annotation(image_id=True)}, "(id 77): 'image_id' must be an integer"),
        ({"images": image(file_name="a\\..")}, "(id 10): 'file_name' must be the path of a file"),
        ({"annotations": annotation(bbox=[1, 2, 3, 10**400])}, "(id 77): 'bbox' must be four numbers"),
        ({"annotations": [{"id": 77, "image_id": 10, "category_id": 1}]}, "(id 77): 'bbox' must be four numbers"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_in_one_line(write_coco, sections: dict, words: str) -> None:
    path = train_json(write_coco(sections=sections))
    with pytest.raises(DatasetError) as caught:
        read_annotations(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


def test_boxes_that_are_cut_at_the_border_are_counted_in_one_warning(write_coco, caplog) -> None:
    boxes = [[-5, 2, 10, 10], [60, 40, 30, 30], [1, 2, 3, 4], [60, 9, 4.9, 5], [70, 5, 3, 3]]
    read_annotations(train_json(write_coco([(0, 1, box) for box in boxes])))
    messages = [record.getMessage().partition("train.json: ")[2] for record in caplog.records]
    assert messages == [
        "boxes without area inside their image, dropped: 1 (annotation 5)",
        "boxes that reach out of their image, cut at its border: 2 (annotation 1, 2)",
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"[1]", b'"text"'])
def test_a_file_that_is_not_coco_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "instances_train.json"
    path.write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"instances_train\.json: (not (valid JSON|a COCO annotation file)|line 1 is not UTF-16)"
    ) as caught:
        read_annotations(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_of_other_systems_are_read(write_coco, encoding: str) -> None:
    path = train_json(write_coco([(0, 1, [1, 2, 3, 4])], categories={1: "Ü 東京"}))
    before = read_annotations(path)
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=encoding)
    after = read_annotations(path)
    assert after.class_names == before.class_names == ["Ü 東京"]
    assert torch.equal(after.boxes, before.boxes)


@pytest.mark.parametrize("values", [[0, 1], [False, True], [0.0, 1.0], [None, 1]])
def test_crowd_marks_are_read_as_numbers_or_truth(write_coco, values: list) -> None:
    records = [*annotation(iscrowd=values[0]), *annotation(iscrowd=values[1])]
    assert read_annotations(train_json(write_coco(sections={"annotations": records}))).crowd.tolist() == [False, True]


def test_an_unknown_class_names_the_nearest(write_coco) -> None:
    path = train_json(write_coco(categories={1: "bicycle", 2: "person"}))
    with pytest.raises(DatasetError, match=r"no category 'persn' \(data\.classes\); the nearest is 'person'"):
        read_annotations(path, classes=["persn"])
    with pytest.raises(DatasetError, match=r"data\.classes is empty"):
        read_annotations(path, classes=[])


def test_only_images_and_categories_of_an_image_info_file_are_read(write_coco) -> None:
    root = write_coco(sizes=[(8, 9)], sections={"annotations": None})
    found = read_annotations(train_json(root), images_only=True)
    assert found.sizes.tolist() == [[8, 9]]
    assert len(found.boxes) == 0


def test_skipping_leaves_out_what_cannot_be_used_and_warns_once_per_kind(write_coco, caplog) -> None:
    sections = {
        "images": [*image(), *image(), *image(id=11, file_name=".."), *image(id=12, file_name="12.png"), 3],
        "annotations": [
            *annotation(),
            *annotation(image_id=11),  # its image is left out
            *annotation(image_id=99),
            *annotation(category_id=9),
            *annotation(bbox=[1, 2, 3]),
            *annotation(image_id=12),
            "text",
        ],
    }
    path = train_json(write_coco(sections=sections))
    found = read_annotations(path, on_error="skip")
    assert found.image_ids.tolist() == [10, 12]
    assert found.objects(0)["boxes"].tolist() == found.objects(1)["boxes"].tolist() == [[1, 1, 4, 4]]
    messages = sorted(record.getMessage().removeprefix(f"{path}: left out ") for record in caplog.records)
    assert [message.split(" (")[0] for message in messages] == [
        "1 of annotations: 'bbox' must be four numbers",
        "1 of annotations: not an object",
        "1 of annotations: unknown category_id",
        "1 of images: 'file_name' must be the path of a file",
        "1 of images: id occurs more than once",
        "1 of images: not an object",
        "2 of annotations: unknown image_id",
    ]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("first", [{}, {"height": None}])  # an entry that cannot be used had annotations, too
def test_an_id_of_two_files_is_refused_even_where_entries_may_be_left_out(write_coco, on_error, first) -> None:
    images = [*image(id=9), *image(**first), *image(file_name="b/../001.png")]
    path = train_json(write_coco(sections={"images": images, "annotations": annotation()}))
    with pytest.raises(DatasetError) as caught:
        read_annotations(path, on_error=on_error)
    assert str(caught.value) == (
        f"{path}: images[2] (id 10): this id is also that of images[1], another file (000.png), so annotations cannot "
        "be told apart; give each image its own id, or import the exports one by one"
    )


def test_two_entries_of_one_file_may_share_their_id(write_coco) -> None:
    images = [*image(), *image(file_name="a/../000.png"), *image(file_name=".\\000.png")]
    path = train_json(write_coco(sections={"images": images, "annotations": annotation()}))
    assert read_annotations(path, on_error="skip").objects(0)["boxes"].tolist() == [[1, 1, 4, 4]]


def test_skipping_needs_an_image_and_sound_categories(write_coco) -> None:
    with pytest.raises(DatasetError, match=r"not one entry of 'images' .*\(1 × images\[0\]: not an object"):
        read_annotations(train_json(write_coco(sections={"images": [3]})), on_error="skip")
    with pytest.raises(DatasetError, match=r"categories\[0\].*'name' must be a string"):
        read_annotations(train_json(write_coco(sections={"categories": [{"id": 1}]})), on_error="skip")
