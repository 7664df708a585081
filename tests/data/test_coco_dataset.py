import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import CocoDetection, DatasetError, eval_transform, train_transform


def draw_from_torch(image: torch.Tensor, target: dict) -> tuple[torch.Tensor, dict]:
    return torch.rand(3, 2, 2), target


def test_a_sample_has_what_is_promised(write_coco) -> None:
    root = write_coco([(1, 2, [4, 6, 20, 10]), (1, 1, [0, 0, 64, 48])], sizes=[(10, 20), (48, 64)])
    dataset = CocoDetection(root, "train", transform=eval_transform(size=(96, 32)))
    image, target = dataset[1]
    assert (image.dtype, image.shape) == (torch.uint8, (3, 96, 32))
    assert target["boxes"].tolist() == [[2, 12, 12, 32], [0, 0, 32, 96]]
    assert target["labels"].tolist() == [1, 0]
    assert (target["labels"].dtype, target["crowd"].dtype) == (torch.int64, torch.bool)
    assert {key: target[key] for key in ("image_id", "orig_size", "size")} == {
        "image_id": 20,
        "orig_size": (48, 64),
        "size": (96, 32),
    }
    assert type(target["image_id"]) is int
    assert len(dataset) == 2
    assert dataset[0][1]["boxes"].shape == (0, 4)
    assert (dataset.class_names, dataset.category_ids) == (["cat", "dog"], [1, 2])
    assert dataset.sizes.tolist() == [[10, 20], [48, 64]]
    assert dataset.image_ids.tolist() == [10, 20]


def test_without_a_transform_the_pixels_are_the_file_s(write_coco) -> None:
    root = write_coco(sizes=[(10, 20)])
    image, target = CocoDetection(root, "train")[0]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.array(Image.open(root / "train/000.png")))
    assert target["size"] == target["orig_size"] == (10, 20)


def test_indices_end_where_the_data_does(write_coco) -> None:
    dataset = CocoDetection(write_coco(sizes=[(8, 8)] * 3), "train")
    assert [target["image_id"] for _, target in dataset] == [10, 20, 30]
    assert dataset[-1][1]["image_id"] == 30
    with pytest.raises(IndexError):
        dataset[0, 3]


def test_crowd_regions_are_kept_and_marked(shared: Path) -> None:
    dataset = CocoDetection(shared / "data/coco_tiny", "val2017", transform=eval_transform(size=(64, 64)))
    records = json.loads(dataset.annotation_file.read_text())["annotations"]
    expected = {record["image_id"] for record in records if record["iscrowd"]}
    assert {target["image_id"] for _, target in dataset if target["crowd"].any()} == expected != set()


def test_random_numbers_come_from_seed_epoch_and_index_alone(write_coco) -> None:
    root = write_coco(sizes=[(8, 8)] * 2)
    dataset = CocoDetection(root, "train", transform=draw_from_torch, seed=5)
    torch.manual_seed(1)
    draws = {key: dataset[key][0] for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    other_seed = CocoDetection(root, "train", transform=draw_from_torch, seed=6)
    everything = [*draws.values(), other_seed[0, 0][0]]
    assert len({values.numpy().tobytes() for values in everything}) == 5
    torch.manual_seed(2)
    for key in reversed(draws):
        assert torch.equal(dataset[key][0], draws[key])
    assert torch.equal(dataset[0][0], draws[0, 0])


def test_the_caller_s_random_numbers_are_left_alone(write_coco) -> None:
    dataset = CocoDetection(write_coco(sizes=[(8, 8)]), "train", transform=draw_from_torch)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    dataset[0, 0]
    assert torch.equal(torch.rand(4), expected)


def test_a_pickled_copy_gives_the_same_samples(shared: Path) -> None:
    dataset = CocoDetection(shared / "data/bccd", "val", transform=train_transform("ssd", (96, 96)), seed=2)
    copy = pickle.loads(pickle.dumps(dataset))
    for key in [(0, 0), (3, 17)]:
        (image, target), (image_2, target_2) = dataset[key], copy[key]
        assert torch.equal(image, image_2)
        assert torch.equal(target["boxes"], target_2["boxes"])


def test_changing_a_sample_does_not_change_the_data_set(write_coco) -> None:
    dataset = CocoDetection(write_coco([(0, 1, [1, 2, 3, 4])]), "train")
    dataset[0][1]["boxes"].zero_()
    assert dataset[0][1]["boxes"].tolist() == [[1, 2, 4, 6]]


def test_an_image_info_file_gives_images_without_annotations(write_coco) -> None:
    root = write_coco([(0, 1, [1, 2, 3, 4])], split="test")
    (root / "annotations/instances_test.json").rename(root / "annotations/image_info_test.json")
    dataset = CocoDetection(root, "test")
    assert not dataset.has_annotations
    assert dataset.annotation_file == root / "annotations/image_info_test.json"
    assert len(dataset[0][1]["boxes"]) == 0


@pytest.mark.parametrize(
    "folder, remedy",
    [
        ("coco", "cocodataset.org"),
        ("shapes", "python scripts/make_shapes.py --output {root}"),
        ("mine", "set data.root to a folder in COCO format"),
    ],
)
def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path, folder: str, remedy: str) -> None:
    root = tmp_path / folder
    with pytest.raises(DatasetError) as caught:
        CocoDetection(root, "train")
    assert str(caught.value).startswith(f"{root / 'annotations/instances_train.json'}: no such annotation file; ")
    assert remedy.format(root=root) in str(caught.value)


def test_a_missing_split_names_those_that_exist(write_coco) -> None:
    write_coco(split="train2017")
    root = write_coco(split="val2017")
    with pytest.raises(DatasetError, match=r"instances_train\.json: .*the splits there are train2017, val2017"):
        CocoDetection(root, "train")
    shutil.rmtree(root / "val2017")
    with pytest.raises(DatasetError, match=r"val2017: no such image folder"):
        CocoDetection(root, "val2017")


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", [(40, 64), (48, 48)])
def test_boxes_drawn_on_the_image_as_viewers_show_it_lie_on_their_objects(write_coco, size, cached: bool) -> None:
    box, exif = [5, 8, 10, 6], Image.Exif()
    root = write_coco([(i, 1, box) for i in range(8)], sizes=[size] * 8)
    shown = Image.new("RGB", size[::-1])
    shown.paste((255, 0, 0), (5, 8, 15, 14))
    # what makes the stored image of each orientation, 1 to 8, out of the upright one: Pillow's own inverse
    names = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270"
    ways = [None, *(Image.Transpose[name] for name in names.split())]
    for index, way in enumerate(ways):
        exif[0x0112] = index + 1
        (shown if way is None else shown.transpose(way)).save(root / f"train/{index:03}.png", exif=exif)
    dataset = CocoDetection(root, "train")
    if cached:
        dataset.hold_files()
    for image, target in dataset:
        x1, y1, x2, y2 = target["boxes"][0].int().tolist()
        assert (image[0, y1:y2, x1:x2] == 255).all()
        assert (image[0] == 255).sum() == 60
    as_stored = CocoDetection(root, "train", exif="ignore")
    on_object = [bool((as_stored[index][0][0, 8:14, 5:15] == 255).all()) for index in range(4)]
    assert on_object == [True, False, False, False]  # turns that keep the size


@pytest.mark.parametrize("name", ["day2\\001.png", ".\\day2\\001.png"])
def test_names_with_backslashes_are_paths_unless_a_file_has_that_name(write_coco, name: str) -> None:
    image = {"id": 10, "file_name": name, "height": 48, "width": 64}
    root = write_coco(sections={"images": [image]})
    (root / "train/day2").mkdir()
    (root / "train/000.png").rename(root / "train/day2/001.png")
    dataset = CocoDetection(root, "train")
    assert dataset.path(0) == root / "train/day2/001.png" and dataset[0][0].shape == (3, 48, 64)
    (root / "train/day2/001.png").rename(root / "train" / name)
    assert dataset.path(0) == root / "train" / name and dataset[0][0].shape == (3, 48, 64)


@pytest.fixture
def with_image_elsewhere(write_coco, tmp_path_factory):
    """make(how) -> root of two images, the second outside, named by a `relative` path, one of
    `windows`, an `absolute` one, or by a `link`."""

    def make(how: str) -> Path:
        root, elsewhere = write_coco(sizes=[(8, 9)] * 2), tmp_path_factory.mktemp("elsewhere") / "b.png"
        shutil.move(root / "train/001.png", elsewhere)
        if how == "link":
            (root / "train/001.png").symlink_to(elsewhere)
            return root
        file = root / "annotations/instances_train.json"
        document = json.loads(file.read_text())
        relative = Path(os.path.relpath(elsewhere, root / "train"))
        name = str(elsewhere if how == "absolute" else relative)
        document["images"][1]["file_name"] = name.replace("/", "\\") if how == "windows" else name
        file.write_text(json.dumps(document))
        return root

    return make


@pytest.mark.parametrize("how", ["relative", "windows", "absolute", "link"])
def test_images_outside_are_read_after_one_line_and_refused_on_demand(with_image_elsewhere, caplog, how: str) -> None:
    root = with_image_elsewhere(how)
    dataset = CocoDetection(root, "train")
    assert dataset[1][0].shape == (3, 8, 9)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (how != "link")  # links are the user's own
    assert all(line.startswith(f"{root}: 1 image lies outside of it, in ") for line in lines)
    for on_error in ("stop", "skip"):
        with pytest.raises(
            DatasetError, match=r"1 image lies outside .*\(the first: b\.png\).*leave out --inside-only"
        ):
            CocoDetection(root, "train", on_error=on_error, inside_only=True)


def test_another_folder_of_the_data_set_is_not_outside(write_coco, caplog) -> None:
    root = write_coco(sizes=[(8, 9)])
    (root / "train").rename(root / "images")
    (root / "train").mkdir()
    file = root / "annotations/instances_train.json"
    file.write_text(file.read_text().replace("000.png", "../images/000.png"))
    assert CocoDetection(root, "train", inside_only=True)[0][0].shape == (3, 8, 9)
    assert not caplog.records


def test_images_of_another_split_are_found_through_links(write_coco) -> None:
    for split in ("train", "val"):
        root = write_coco(sizes=[(8, 9)] * 3, split=split)
    training, validation = CocoDetection(root, "train"), CocoDetection(root, "val")
    assert validation.images_shared_with(training) == 0  # equal names, and content, are not the same file
    for name in ("001.png", "002.png"):
        (root / "val" / name).unlink()
        (root / "val" / name).symlink_to(root / "train" / name)
    (root / "train/000.png").unlink()
    assert validation.images_shared_with(training) == 2
    assert training.images_shared_with(training) == 3


def test_a_long_name_of_windows_is_read_with_its_folders(write_coco):
    name = "D:\\" + "\\".join(["folder with a long name"] * 12) + "\\a.png"
    root = write_coco(sections={"images": [{"id": 1, "file_name": name, "height": 4, "width": 4}]})
    assert len(name) > 255
    assert CocoDetection(root, "train").path(0).parts[-3:] == ("folder with a long name",) * 2 + ("a.png",)


def test_what_is_left_out_is_said_once(write_coco, caplog):
    root = write_coco([(0, 1, [1, 1, 9, 9]), (7, 1, [1, 1, 9, 9])])
    dataset = CocoDetection(root, "train", on_error="skip")
    assert caplog.text.count("left out 1 of") == 1
    assert len(dataset.ground_truth["annotations"]) == 1 and caplog.text.count("left out 1 of") == 1
