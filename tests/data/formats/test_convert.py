"""What converters write, and what they leave alone."""

from pathlib import Path

import pytest
from voc_labels import read, voc_object

import data.formats.convert
from data import CocoDetection, DatasetError
from data.formats.convert import LabelledImage, LabelledObject, place, split_at_random, write_splits
from data.output_folder import LIST_NAME, OutputError


def test_images_are_linked_or_copied_and_never_moved(voc, tmp_path):
    root = voc({"a": [voc_object()]})
    for copy in (False, True):
        out = tmp_path / f"out{copy}"
        write_splits(out, {"train": read(root)}, ["cat"], copy)
        image = out / "train" / "a.jpg"
        assert image.is_symlink() is not copy
        assert image.read_bytes() == (root / "JPEGImages/a.jpg").read_bytes()
        written = {"train", "annotations", "a.jpg", "instances_train.json", LIST_NAME}
        assert {path.name for path in out.rglob("*")} == written


def test_an_existing_data_set_is_not_replaced(voc, tmp_path):
    images = read(voc({"a": [voc_object()]}))
    write_splits(tmp_path / "out", {"val": images}, ["cat"], copy=False)
    with pytest.raises(OutputError, match=r"instances_val\.json: exists from before; .* --overwrite"):
        write_splits(tmp_path / "out", {"train": images, "val": images}, ["cat"], copy=False)
    assert not (tmp_path / "out/train").exists()


def test_overwriting_leaves_nothing_of_the_earlier_data_set_and_all_of_the_users(voc, tmp_path):
    out = tmp_path / "out"
    before = read(voc({"a": [voc_object()], "b": [voc_object()]}))
    write_splits(out, {"train": before[:1], "val": before[1:]}, ["cat"], copy=False)
    (out / "val/mine.txt").write_text("mine")
    write_splits(out, {"train": before[1:]}, ["cat"], copy=True, overwrite=True)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left == {"train/b.jpg", "val/mine.txt", "annotations/instances_train.json", LIST_NAME}
    assert not (out / "train/b.jpg").is_symlink()
    assert all(image.path.is_file() and not image.path.is_symlink() for image in before)
    (out / "annotations/instances_val.json").write_text("mine")  # once removed, a name is the user's again
    with pytest.raises(OutputError):
        write_splits(out, {"val": before[1:]}, ["cat"], copy=False)
    assert (out / "annotations/instances_val.json").read_text() == "mine"


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("way", ["direct", "linked output", "linked images", "hard links"])
def test_converting_in_place_never_touches_an_image(voc, tmp_path, copy, overwrite, way):
    root = voc({"a": [voc_object()], "b": [voc_object()]})
    root.joinpath("JPEGImages").rename(tmp_path / "train")
    root.joinpath("JPEGImages").symlink_to(tmp_path / "train")
    out, images = tmp_path, read(root)
    if way == "linked output":
        out = tmp_path / "out"
        out.mkdir()
        (out / "train").symlink_to(tmp_path / "train")
    elif way == "linked images":
        out = tmp_path / "out"
        out.mkdir()
        for name in ("a.jpg", "b.jpg"):
            (tmp_path / "train" / name).rename(tmp_path / name)
            (tmp_path / "train" / name).symlink_to(tmp_path / name)
        (tmp_path / "train").rename(out / "train")
        (tmp_path / "train").symlink_to(out / "train")
    elif way == "hard links":
        out = tmp_path / "out"
        (out / "train").mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            (out / "train" / name).hardlink_to(tmp_path / "train" / name)
    before = {image.path: image.path.read_bytes() for image in images}
    with pytest.raises(OutputError):
        write_splits(out, {"train": images}, ["cat"], copy, overwrite)
    assert {path: path.read_bytes() for path in before} == before
    assert not (out / "annotations").exists()


def test_images_that_lead_into_the_output_are_not_replaced(voc, tmp_path):
    out = tmp_path / "out"
    (image,) = read(voc({"a": [voc_object()]}))
    write_splits(out, {"train": [image]}, ["cat"], copy=True)
    content = image.path.read_bytes()
    image.path.unlink()
    image.path.symlink_to(out / "train/a.jpg")  # the copy is now the only one
    for copy in (False, True):
        with pytest.raises(OutputError, match="is read for what would be written"):
            write_splits(out, {"train": [image]}, ["cat"], copy, overwrite=True)
    assert image.path.read_bytes() == content


def test_a_conversion_that_was_interrupted_is_done_again(voc, tmp_path, monkeypatch):
    out, images = tmp_path / "out", read(voc({name: [voc_object()] for name in "abc"}))
    place, done = data.formats.convert.place, []

    def interrupted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(place(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(data.formats.convert, "place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_splits(out, {"train": images}, ["cat"], copy=True)
    assert not (out / "annotations").exists()
    write_splits(out, {"train": images}, ["cat"], copy=True, overwrite=True)
    assert len(CocoDetection(out, "train")) == 3


def test_random_splits_depend_on_names_and_seed_alone():
    paths = [Path(f"/data/{index:03}.xml") for index in range(50)]
    splits = split_at_random(paths, {"val": 0.2, "test": 0.1}, seed=3)
    assert {split: len(files) for split, files in splits.items()} == {"train": 35, "val": 10, "test": 5}
    assert sorted(path for files in splits.values() for path in files) == paths
    assert split_at_random(paths[::-1], {"val": 0.2, "test": 0.1}, seed=3) == splits
    assert split_at_random(paths, {"val": 0.2, "test": 0.1}, seed=4) != splits
    for count, shares, words in (
        (1, {"val": 0.2, "test": 0}, "1 image is too few for a share of 0.2 for val; take --val 0, or a larger share"),
        (2, {"val": 0, "test": 0.2}, "2 images are too few for .* test; take --test 0, or a larger share"),
        (2, {"val": 0.4, "test": 0.5}, "2 images are too few for .* test; take --test 0, or a smaller share"),
    ):
        with pytest.raises(DatasetError, match=words):
            split_at_random(paths[:count], shares, seed=0)
    with pytest.raises(DatasetError, match="shares"):
        split_at_random(paths, {"val": 0.6, "test": 0.4}, seed=0)


def test_a_class_that_is_not_named_is_refused_before_anything_is_replaced(voc, tmp_path):
    out = tmp_path / "out"
    write_splits(out, {"train": read(voc({"a": [voc_object()]}))}, ["cat"], copy=True)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    images = read(voc({"a": [voc_object(), voc_object("cta")]}))
    with pytest.raises(DatasetError, match=r"a\.jpg: .* 'cta', which is none of cat, dog; mend the label, or"):
        write_splits(out, {"train": images}, ["cat", "dog"], copy=True, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_two_images_of_one_name_are_refused(tmp_path):
    images = [LabelledImage(tmp_path / name, "a.jpg", (9, 9), [LabelledObject("cat", (0, 0, 1, 1))]) for name in "xy"]
    with pytest.raises(DatasetError, match="rename one"):
        write_splits(tmp_path / "out", {"train": images}, ["cat"], copy=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("copy", [True, False])
def test_names_may_be_as_long_as_the_system_allows(tmp_path, copy):
    (tmp_path / "a.jpg").write_bytes(b"image")
    target = tmp_path / "out" / ("图" * 83 + ".jpg")  # 253 of 255 bytes
    place(tmp_path / "a.jpg", target, copy)
    assert target.read_bytes() == b"image" and [*target.parent.iterdir()] == [target]
