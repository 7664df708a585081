"""predict.py and `predict`: the operating point, boxes in the image's own pixels, files that never collide."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import scripts.predict as script
from data import DatasetError
from data.output_folder import LIST_NAME, OutputFolder
from engine import load_detector, predict
from engine.run.checkpoint import load_checkpoint, save_checkpoint
from engine.run.operating_point import classes_without_threshold, score_thresholds
from engine.tools.prediction_files import claim_output
from engine.tools.prediction_inputs import find_inputs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, write_checkpoint) -> Path:
    """With thresholds for all classes but the last."""
    names = ["circle", "square", "triangle", "star", "cross", "<ring> & $"]
    thresholds = [0.5, 0.4, 0.6, 0.5, 0.5, None]
    return write_checkpoint(
        tmp_path_factory.mktemp("predict"), names, thresholds=thresholds, category_ids=[2, 3, 5, 7, 11, 13]
    )


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["predict.py", *map(str, arguments)])
    return script.main()


def write_image(path: Path, size=(90, 60), mode="RGB", color=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.effect_noise(size, 80).convert(mode) if color is None else Image.new(mode, size, color)
    image.save(path)
    return path


def test_keeps_what_reaches_its_classs_threshold(checkpoint):
    detector, info = load_detector(checkpoint)
    image = torch.randint(256, (3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    everything = predict(detector, info, image, threshold=0.0)
    assert len(everything["scores"]) == 20
    limits = torch.tensor([0.5, 0.4, 0.6, 0.5, 0.5, 0.5])
    wanted = everything["scores"] >= limits[everything["labels"]]
    assert 0 < wanted.sum() < 20  # else nothing is tested
    for name, value in predict(detector, info, image).items():
        assert torch.equal(value, everything[name][wanted]), name
    assert score_thresholds(info) == [0.5, 0.4, 0.6, 0.5, 0.5, 0.5]
    assert classes_without_threshold(info) == ["<ring> & $"]


def test_boxes_are_in_pixels_of_the_image_and_padding_is_no_place(checkpoint):
    detector, info = load_detector(checkpoint)
    config = info.config.model_copy(
        update={"evaluation": info.config.evaluation.model_copy(update={"short_side": 48, "long_side": 64})}
    )
    info = type(info)(**{**vars(info), "config": config})
    image = torch.randint(256, (3, 90, 400), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    boxes = predict(detector, info, image, threshold=0.0)["boxes"]
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 400 and boxes[:, 3].max() <= 90
    assert boxes[:, 2].max() > 300 and boxes[:, 3].max() > 70


def test_a_threshold_is_included(checkpoint):
    detector, info = load_detector(checkpoint)
    image = torch.randint(256, (3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    scores = predict(detector, info, image, threshold=0.0)["scores"]
    kept = predict(detector, info, image, threshold=scores[4].item())["scores"]
    assert kept.tolist() == scores[scores >= scores[4]].tolist()


def test_pictures_and_results_of_files_and_folders(checkpoint, tmp_path, monkeypatch, capsys):
    hidden = ("in/.hidden.jpg", "in/.ipynb_checkpoints/a-checkpoint.jpg")
    for name in ("in/x/a.jpg", "in/y/a.jpg", "in/y/A.PNG", *hidden, "other/a.png"):
        write_image(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no image")
    output = tmp_path / "in" / "out"
    for _ in range(2):  # the second time finds the pictures of the first below its input
        arguments = (tmp_path / "in", tmp_path / "other/a.png", tmp_path / "in/x/a.jpg")
        assert run(monkeypatch, "--ckpt", checkpoint, "--output", output, "--threshold", 0, *arguments) == 0
        written = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
        assert written == {"x/a.jpg", "y/A.jpg", "y/a-2.jpg", "a.jpg", "detections.json", LIST_NAME}
    assert "4 of 4 images done" in capsys.readouterr().out
    results = json.loads((output / "detections.json").read_text())
    _, info = load_detector(checkpoint)
    ids = dict(zip(info.classes, info.category_ids, strict=True))
    assert ids["cross"] == 11
    for result in results:
        assert result["category_id"] == ids[result["category_name"]]
        assert 0 < result["score"] < 1
        x, y, width, height = result["bbox"]
        assert min(x, y, width, height) >= 0 and x + width <= 90.001 and y + height <= 60.001
    assert not any("image_id" in result for result in results)
    assert sorted({result["file_name"] for result in results}) == [
        str(tmp_path / name) for name in ("in/x/a.jpg", "in/y/A.PNG", "in/y/a.jpg", "other/a.png")
    ]
    with Image.open(output / "a.jpg") as picture:
        assert picture.size == (90, 60)


def test_images_of_any_mode(checkpoint, tmp_path, monkeypatch):
    modes = ["L", "P", "RGBA", "LA", "1", "I;16", "CMYK"]
    for number, mode in enumerate(modes):
        write_image(tmp_path / f"in/{number}.{'tif' if mode == 'CMYK' else 'png'}", mode=mode, color=0)
    assert run(monkeypatch, "--ckpt", checkpoint, "--output", tmp_path / "out", tmp_path / "in") == 0
    assert all((tmp_path / f"out/{number}.jpg").exists() for number in range(len(modes)))


@pytest.mark.parametrize(("exif", "turned"), [("turn", True), ("ignore", False), ("legacy", True)])
def test_pixels_are_turned_as_the_checkpoint_says(checkpoint, tmp_path, monkeypatch, exif, turned):
    state = load_checkpoint(checkpoint)
    state["config"]["data"]["exif"] = exif
    save_checkpoint(tmp_path / "c.pt", state)
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png", exif=tags)
    assert run(monkeypatch, "--ckpt", tmp_path / "c.pt", "--output", tmp_path / "out", tmp_path / "a.png") == 0
    with Image.open(tmp_path / "out/a.jpg") as picture:
        assert picture.size == ((60, 90) if turned else (90, 60))


@pytest.mark.parametrize("resize", ["paper", "torchvision"])
def test_the_narrowest_images_end_no_run(checkpoint, tmp_path, monkeypatch, resize):
    state = load_checkpoint(checkpoint)
    state["config"]["evaluation"] |= {"short_side": 64, "long_side": 128, "resize": resize}
    save_checkpoint(tmp_path / "c.pt", state)
    for width, height in ((1, 1), (1, 3000), (3000, 1), (2000, 3)):
        write_image(tmp_path / f"in/{width}x{height}.png", (width, height))
    assert run(monkeypatch, "--ckpt", tmp_path / "c.pt", "--output", tmp_path / "out", tmp_path / "in") == 0
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 4


def test_unreadable_images_are_warned_of_and_the_rest_is_done(checkpoint, tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "in/good.jpg")
    for name in ("bad.jpg", "worse.png"):
        (tmp_path / "in" / name).write_text("not an image")
    assert run(monkeypatch, "--ckpt", checkpoint, "--output", tmp_path / "out", tmp_path / "in") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines if line.startswith("warning:")] == [
        f"{tmp_path}/in/bad.jpg",
        f"{tmp_path}/in/worse.png",
    ]
    assert next(line for line in lines if line.startswith("error:")).startswith("error: 2 of 3 images")
    assert (tmp_path / "out/good.jpg").exists()
    names = {r["file_name"] for r in json.loads((tmp_path / "out/detections.json").read_text())}
    assert names <= {str(tmp_path / "in/good.jpg")}


def test_classes_without_a_threshold_are_named_once(checkpoint, tmp_path, monkeypatch, capsys):
    image = write_image(tmp_path / "a.png")
    assert run(monkeypatch, "--ckpt", checkpoint, "--output", tmp_path / "out", image) == 0
    assert "no LRP-optimal threshold for 1 of 6 classes (<ring> & $): shown from 0.5 on" in capsys.readouterr().err
    never = tmp_path / "never.pt"
    save_checkpoint(never, load_checkpoint(checkpoint) | {"thresholds": None})
    assert run(monkeypatch, "--ckpt", never, "--output", tmp_path / "out", image) == 0
    assert "for 6 of 6 classes" in capsys.readouterr().err
    assert run(monkeypatch, "--ckpt", never, "--output", tmp_path / "out", "--threshold", "0.3", image) == 0
    assert "no LRP-optimal" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["gone.jpg"], "gone.jpg: no such image or folder"),
        (["empty"], "empty: no image or video to read in it"),
        (["--threshold", "1.5", "empty"], "--threshold 1.5"),
    ],
)
def test_wrong_arguments_are_one_line(checkpoint, tmp_path, monkeypatch, capsys, arguments, expected):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--ckpt", checkpoint, "--output", tmp_path / "out", *arguments)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error:") and expected in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_picture_never_replaces_what_was_not_written_there(checkpoint, tmp_path, monkeypatch, capsys):
    photo = write_image(tmp_path / "photos/a.jpg")
    before = photo.read_bytes()
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "photos")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/detections.json").write_text("mine")
    for output in (tmp_path / "photos", linked, tmp_path / "mine"):
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, "--ckpt", checkpoint, "--output", output, photo)
        assert stop.value.code == 2
        assert "exists and was not written there" in capsys.readouterr().err
    assert photo.read_bytes() == before and (tmp_path / "mine/detections.json").read_text() == "mine"
    assert {path.name for path in tmp_path.rglob("*") if not path.is_dir()} == {"a.jpg", "detections.json"}


def test_a_picture_that_is_detected_on_is_not_replaced(checkpoint, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    assert run(monkeypatch, "--ckpt", checkpoint, "--output", output, write_image(tmp_path / "a.png")) == 0
    before = (output / "a.jpg").read_bytes()
    with pytest.raises(SystemExit):
        run(monkeypatch, "--ckpt", checkpoint, "--output", output, output / "a.jpg")
    assert "is read for what would be written there" in capsys.readouterr().err
    assert (output / "a.jpg").read_bytes() == before


def test_names_differ_also_where_case_does_not_count(tmp_path):
    files = [write_image(tmp_path / name, (8, 8)) for name in ("p/A.png", "q/a.png", "r/a-2.png", "s/a.bmp")]
    names = [entry.picture.name for entry in find_inputs(files, tmp_path / "out")]
    assert len({name.lower() for name in names}) == 4
    with pytest.raises(DatasetError):
        find_inputs([tmp_path / "out"], tmp_path / "out")


def test_pictures_of_earlier_runs_are_no_inputs_and_other_images_are(tmp_path):
    write_image(tmp_path / "a.png")
    for output in (tmp_path / "first", tmp_path / "second/deep"):
        inputs = find_inputs([tmp_path], output)
        assert [entry.file for entry in inputs] == [tmp_path / "a.png"]
        claim_output(inputs, output, [])
        write_image(output / "a.jpg")
    write_image(tmp_path / "first/b.jpg")  # and one that no run wrote there
    OutputFolder(tmp_path / "converted").claim(["c.jpg"])  # a list of another program
    write_image(tmp_path / "converted/c.jpg")
    found = {str(entry.file.relative_to(tmp_path)) for entry in find_inputs([tmp_path], tmp_path / "third")}
    assert found == {"a.png", "first/b.jpg", "converted/c.jpg"}


def test_a_folder_in_the_output_folder_is_named(tmp_path):
    write_image(tmp_path / "out/photos/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "out/photos")
    for folder in (tmp_path / "out/photos", tmp_path / "out", tmp_path / "link"):
        with pytest.raises(DatasetError, match=rf"^{folder}: is in the output folder {tmp_path}/out, .*name another"):
            find_inputs([folder], tmp_path / "out")


def test_the_documented_example_gives_what_the_script_writes(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs/quickstart/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/quickstart/checkpoints/best.pt").symlink_to(checkpoint)
    write_image(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/predict.md").read_text(), re.DOTALL).group(1)
    names = {}
    exec(compile(code, "predict.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed
    assert run(monkeypatch, "--ckpt", checkpoint, "--output", "predictions", "photo.jpg") == 0
    results = json.loads((tmp_path / "predictions/detections.json").read_text())
    assert len(printed) == len(results)
    assert [line.split(" [")[0] for line in printed] == [
        f"{r['category_name']} {round(r['score'], 2)}" for r in results
    ]
