"""Generated shapes: reproducible, valid COCO, boxes and areas that agree with the outlines, a fair task."""

import contextlib
import io
import json
import multiprocessing
from collections import Counter

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image
from pycocotools.coco import COCO

from data import DatasetError
from data.output_folder import LIST_NAME, OutputError
from data.synthetic.scene import CLASSES, MAX_OBJECTS, MIN_INSIDE, MIN_VISIBLE, SIDE_RANGE, draw_scene
from data.synthetic.shapes import generate_shapes

SIZE = 128
SCENES = 90


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, "train", index, SIZE) for index in range(SCENES)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    generate_shapes(folder, {"train": 6, "val": 3}, image_size=SIZE, seed=3)
    return folder


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != LIST_NAME)
    return {path.relative_to(folder): path.read_bytes() for path in files}


def covered(contours, samples=3):
    """(S, S) share of each pixel inside the contours by the even-odd rule, from samples × samples points."""
    ticks = (np.arange(SIZE * samples) + 0.5) / samples
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    inside = np.zeros(len(points), dtype=bool)
    for contour in contours:
        inside ^= Outline(np.concatenate([contour, contour[:1]]), closed=True).contains_points(points)
    return inside.reshape(SIZE, samples, SIZE, samples).mean(axis=(1, 3))


def shoelace(contour):
    x, y = contour.T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2


def test_same_seed_gives_the_same_files_and_another_seed_others(root, tmp_path):
    generate_shapes(tmp_path / "same", {"train": 6, "val": 3}, image_size=SIZE, seed=3)
    generate_shapes(tmp_path / "other", {"train": 6, "val": 3}, image_size=SIZE, seed=4)
    first, same, other = contents(root), contents(tmp_path / "same"), contents(tmp_path / "other")
    assert len(first) == 6 + 3 + 2  # images and annotation files, nothing left over
    assert same == first
    assert other.keys() == first.keys() and not any(other[name] == first[name] for name in first)


def test_an_image_depends_on_split_and_index_but_not_on_the_length_of_the_split(root, tmp_path):
    generate_shapes(tmp_path, {"train": 2}, image_size=SIZE, seed=3)
    for name in ("train/000000.jpg", "train/000001.jpg"):
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()
    assert (root / "val/000000.jpg").read_bytes() != (root / "train/000000.jpg").read_bytes()
    short, long = (json.loads((f / "annotations/instances_train.json").read_text()) for f in (tmp_path, root))
    assert short["annotations"] == long["annotations"][: len(short["annotations"])]


def test_annotations_are_valid_coco_and_describe_the_drawn_scene(root):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(root / "annotations/instances_train.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.getImgIds()) == 6 and 0 not in coco.getAnnIds()
    for index, entry in enumerate(coco.loadImgs(coco.getImgIds())):
        with Image.open(root / "train" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"]) == (SIZE, SIZE) and image.mode == "RGB"
            drawn, objects, owner = draw_scene(3, "train", index, SIZE)
            assert np.abs(np.asarray(image, dtype=float) - drawn).mean() < 8  # but for JPEG's losses
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[entry["id"]]))
        assert len(annotations) == len(objects)
        for position, (annotation, shape) in enumerate(zip(annotations, objects, strict=True)):
            assert annotation["category_id"] == shape.label + 1 and annotation["iscrowd"] == 0
            assert annotation["bbox"] == shape.box(SIZE)
            assert annotation["area"] == (owner == position).sum()


def test_masks_agree_with_the_outlines_and_boxes_are_tight(scenes):
    for _, objects, _ in scenes[:8]:
        for shape in objects:
            share = covered(shape.contours)
            mask = shape.mask(SIZE)
            # A rasteriser may round the edge by a fraction of a pixel: only clear cases are binding.
            assert mask[share > 0.85].all() and not mask[share < 0.15].any()
            ys, xs = np.nonzero(mask)
            assert shape.box(SIZE) == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_outlines_do_not_cross_themselves(scenes):
    # A self-crossing outline encloses less by the shoelace formula than what is filled.
    for _, objects, _ in scenes:
        for shape in objects:
            outline, *holes = shape.contours
            expected = shoelace(outline) - sum(map(shoelace, holes))
            perimeter = sum(np.linalg.norm(c - np.roll(c, 1, axis=0), axis=1).sum() for c in shape.contours)
            assert abs(shape.coverage.sum() / 255 - expected) < 0.25 * perimeter


def test_objects_are_within_the_size_range_inside_the_image_and_visible(scenes):
    for _, objects, owner in scenes:
        assert 1 <= len(objects) <= MAX_OBJECTS
        assert set(np.unique(owner)) <= {-1, *range(len(objects))}
        for position, shape in enumerate(objects):
            x, y, width, height = shape.box(SIZE)
            assert min(x, y) >= 0 and x + width <= SIZE and y + height <= SIZE
            assert SIDE_RANGE[0] <= max(width, height) / SIZE <= SIDE_RANGE[1]
            assert shape.mask(SIZE).sum() >= MIN_INSIDE * shape.area
            seen = owner == position
            assert seen.sum() >= MIN_VISIBLE * shape.area
            assert shape.mask(SIZE)[seen].all()


def test_nearer_objects_hide_the_ones_behind(scenes):
    overlaps = 0
    for _, objects, owner in scenes:
        for back, shape in enumerate(objects):
            for front in range(back + 1, len(objects)):
                both = shape.mask(SIZE) & objects[front].mask(SIZE)
                overlaps += bool(both.any())
                assert not (owner[both] == back).any()
    assert overlaps > SCENES / 10


def test_classes_and_sizes_are_balanced_and_counts_in_range(scenes):
    objects = [(shape, image) for image, shapes, _ in scenes for shape in shapes]
    labels = np.array([shape.label for shape, _ in objects])
    per_class = np.bincount(labels, minlength=len(CLASSES))
    assert per_class.min() > 0.6 * per_class.mean()
    counts = Counter(len(shapes) for _, shapes, _ in scenes)
    assert 1 <= min(counts) < max(counts) == MAX_OBJECTS
    sides = np.array([max(shape.box(SIZE)[2:]) for shape, _ in objects]) / SIZE
    low, high = np.log(SIDE_RANGE)
    thirds, _ = np.histogram(np.log(sides), np.linspace(low - 1e-9, high + 1e-9, 4))
    assert thirds.min() > 0.25 * len(objects)


def test_colour_hints_at_the_class_but_does_not_give_it_away(scenes):
    objects = [(shape, image) for image, shapes, _ in scenes for shape in shapes]
    labels = np.array([shape.label for shape, _ in objects])
    colours = np.array([image[shape.mask(SIZE)].mean(axis=0) for shape, image in objects])
    means = np.stack([colours[labels == label].mean(axis=0) for label in range(len(CLASSES))])
    nearest = np.linalg.norm(colours[:, None] - means, axis=2).argmin(axis=1)
    assert 1.5 / len(CLASSES) < (nearest == labels).mean() < 0.9


def test_a_complete_split_is_kept_and_an_unfinished_one_is_redone(root, tmp_path):
    generate_shapes(tmp_path, {"train": 2}, image_size=SIZE)
    image = tmp_path / "train/000001.jpg"
    original = image.read_bytes()
    image.write_bytes(b"touched")
    files = generate_shapes(tmp_path, {"train": 2}, image_size=SIZE)
    assert image.read_bytes() == b"touched"
    files["train"].unlink()
    generate_shapes(tmp_path, {"train": 2}, image_size=SIZE)
    assert image.read_bytes() == original


@pytest.mark.parametrize("change", [{"image_size": 96}, {"seed": 1}, {"splits": {"train": 3}}])
def test_other_parameters_are_refused_with_the_file_and_the_remedy(tmp_path, change):
    made = {"splits": {"train": 2}, "image_size": SIZE, "seed": 0}
    generate_shapes(tmp_path, **made)
    with pytest.raises(DatasetError, match=r"instances_train\.json: exists: .*, not .*; choose another folder"):
        generate_shapes(tmp_path, **(made | change))


def test_foreign_annotations_are_never_overwritten(tmp_path):
    file = tmp_path / "annotations/instances_train.json"
    file.parent.mkdir()
    for text in ('{"images": []}', "[]", "not JSON"):
        file.write_text(text)
        with pytest.raises(DatasetError, match="not generated data"):
            generate_shapes(tmp_path, {"train": 1}, image_size=SIZE)
        assert file.read_text() == text


def test_images_of_the_user_are_never_overwritten(tmp_path):
    generate_shapes(tmp_path, {"val": 1}, image_size=SIZE)
    photo = tmp_path / "train/000001.jpg"
    photo.parent.mkdir()
    photo.write_text("holiday")
    with pytest.raises(OutputError, match=r"000001\.jpg: exists and was not written there"):
        generate_shapes(tmp_path, {"train": 3}, image_size=SIZE)
    assert list(photo.parent.iterdir()) == [photo]
    assert photo.read_text() == "holiday"


@pytest.mark.parametrize("name", ["notes.txt", "photos/000000.jpg", "annotations/instances_val.json", ".hidden"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    with pytest.raises(DatasetError, match="not generated data, so photos is not generated there; choose another"):
        generate_shapes(tmp_path, {"photos": 1}, image_size=SIZE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_generated_folder_takes_further_splits_beside_other_files(tmp_path):
    generate_shapes(tmp_path, {"train": 1}, image_size=SIZE)
    (tmp_path / "notes.txt").write_text("mine")
    generate_shapes(tmp_path, {"train": 1, "val": 1}, image_size=SIZE)
    assert (tmp_path / "val/000000.jpg").is_file()


def test_a_folder_that_revision_efdaf8b_generated_takes_further_splits(tmp_path):
    generate_shapes(tmp_path, {"train": 1}, image_size=SIZE)
    file = tmp_path / "annotations/instances_train.json"
    file.write_text(file.read_text().replace("data/synthetic/shapes.py", "data/shapes.py"))
    (tmp_path / ".written-here.jsonl").unlink()
    generate_shapes(tmp_path, {"val": 1}, image_size=SIZE)
    assert (tmp_path / "val/000000.jpg").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        {"splits": {"train": 0}},
        {"splits": {"../train": 1}},
        {"splits": {"..": 1}},
        {"splits": {"": 1}},
        {"splits": {"train": 1}, "image_size": 8},
        {"splits": {"train": 1}, "seed": -1},
    ],
)
def test_impossible_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(DatasetError):
        generate_shapes(tmp_path, **({"image_size": SIZE} | arguments))
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot write"):
        generate_shapes(tmp_path / "file", {"train": 1}, image_size=SIZE)


def test_processes_may_write_the_same_data_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=generate_shapes, args=(tmp_path / "both", {"train": 8}, SIZE)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    generate_shapes(tmp_path / "alone", {"train": 8}, SIZE)
    assert contents(tmp_path / "both") == contents(tmp_path / "alone")
