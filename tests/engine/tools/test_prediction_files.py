"""predict.py on files: ids of an annotation file, videos and animations, and one line of what was found in each."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scripts.evaluate_detections as evaluate_script
import scripts.predict as script
from data.frames import read_frames
from engine import load_detector, predict
from engine.tools import prediction_files

CLASSES = ["circle", "square", "triangle", "star", "cross", "ring"]  # of the generated shapes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, write_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    return write_checkpoint(folder, CLASSES, thresholds=[0.0] * 6, category_ids=[1, 2, 3, 4, 5, 6])


@pytest.fixture
def predict_py(checkpoint, tmp_path, monkeypatch):
    """Runs predict.py into tmp_path/out: its status and results."""

    def run(*arguments: object) -> tuple[int, list[dict]]:
        words = ["predict.py", "--ckpt", checkpoint, "--output", tmp_path / "out", *arguments]
        monkeypatch.setattr("sys.argv", [*map(str, words)])
        status = script.main()
        return status, json.loads((tmp_path / "out/detections.json").read_text())

    return run


def ap_of(monkeypatch, folder: Path, annotations: Path) -> float:
    """AP50 and AP by evaluate_detections.py."""
    words = ["--annotations", annotations, "--detections", folder / "out/detections.json", "--json", folder / "m.json"]
    monkeypatch.setattr("sys.argv", ["evaluate_detections.py", *map(str, words)])
    evaluate_script.main()
    metrics = json.loads((folder / "m.json").read_text())
    return metrics["AR100"], metrics["AP"], metrics["oLRP"]


def frames(count: int, size=(90, 60)) -> list[Image.Image]:
    """Noise whose brightness tells its number."""
    return [Image.effect_noise(size, 40).convert("RGB").point(lambda v, n=n: (v + 30 * n) % 256) for n in range(count)]


def write_video(path: Path, count: int = 5, rotation: int = 0) -> None:
    av = pytest.importorskip("av", reason="needs requirements-video.txt")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 90, 60, "yuv420p", 4_000_000
        if rotation:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation")
            stream.set_display_rotation(rotation)
        for image in frames(count):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


def test_results_in_any_order_are_evaluated_by_name(shapes, predict_py, tmp_path, monkeypatch):
    files, truth = sorted((shapes / "val").iterdir()), shapes / "annotations/instances_val.json"
    assert predict_py(*files)[0] == 0
    in_order = ap_of(monkeypatch, tmp_path, truth)
    assert in_order[0] > 0
    assert predict_py(*reversed(files))[0] == 0
    assert ap_of(monkeypatch, tmp_path, truth) == in_order
    assert predict_py("--annotations", truth, *reversed(files))[0] == 0
    assert ap_of(monkeypatch, tmp_path, truth) == in_order


def test_ids_are_those_of_the_annotation_file(checkpoint, predict_py, tmp_path):
    names = {40: "x/a.png", 7: "b.png"}
    for name in names.values():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "in" / name)
    document = {
        "images": [{"id": key, "file_name": name, "width": 64, "height": 64} for key, name in names.items()],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(reversed(CLASSES), start=1)],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(document))
    status, results = predict_py("--annotations", tmp_path / "truth.json", tmp_path / "in")
    assert status == 0
    assert {(row["image_id"], Path(row["file_name"]).name) for row in results} == {(40, "a.png"), (7, "b.png")}
    known = {category["name"]: category["id"] for category in document["categories"]}
    assert all(row["category_id"] == known[row["category_name"]] for row in results)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": []}, "a.png is no image of this file"),
        ({"images": [{"id": 1, "file_name": "x/a.png"}, {"id": 2, "file_name": "y/a.png"}]}, "may be any of several"),
        ({"categories": [{"id": 1, "name": "circle"}]}, "has no category 'square'"),
        ({"images": None}, "has no list 'images'"),
    ],
)
def test_annotations_of_other_images_are_refused_before_the_work(predict_py, tmp_path, capsys, change, named):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(document | change))
    with pytest.raises(SystemExit) as stop:
        predict_py("--annotations", tmp_path / "truth.json", tmp_path / "a.png")
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path / 'truth.json'}: ") and named in line
    assert not (tmp_path / "out").exists()


def test_a_picture_longer_than_jpeg_can_be_is_drawn_smaller(predict_py, tmp_path):
    Image.new("RGB", (70_000, 8)).save(tmp_path / "strip.png")
    status, results = predict_py(tmp_path / "strip.png")
    assert status == 0 and results
    with Image.open(tmp_path / "out/strip.jpg") as drawn:
        assert drawn.width == 65_500


def test_one_line_says_what_was_found_and_how_fast(predict_py, tmp_path, capsys):
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "a\nb.png")
    status, results = predict_py(tmp_path / "a\nb.png")
    line, last = capsys.readouterr().out.splitlines()
    name, _, rest = line.rpartition(": ")
    assert status == 0 and name == rf"{tmp_path}/a\nb.png" and rest.endswith(" ms)")
    counts = {name: int(count) for count, name in (part.split() for part in rest.split(" (")[0].split(", "))}
    assert counts == {name: sum(row["category_name"] == name for row in results) for name in counts}
    assert sum(counts.values()) == len(results) == 20
    assert last == f"1 of 1 image done: pictures and detections.json are in {tmp_path / 'out'}"
    predict_py("--threshold", 1, tmp_path / "a\nb.png")
    assert ": nothing (" in capsys.readouterr().out


def test_an_interruption_keeps_what_was_found(predict_py, shapes, tmp_path, monkeypatch, capsys):
    files = sorted((shapes / "val").iterdir())[:3]
    whole = predict_py(*files)[1]
    read = prediction_files.read_image
    monkeypatch.setattr(prediction_files, "read_image", lambda file, **exif: stop(file) or read(file, **exif))

    def stop(file):
        if file == files[2]:
            raise KeyboardInterrupt

    status, results = predict_py(*files)
    assert status == 130
    assert results == [row for row in whole if row["file_name"] != str(files[2])] and len(results) == 40
    assert capsys.readouterr().err.splitlines()[-1].endswith("out has pictures and detections.json of 2 of 3 files")


def test_a_video_becomes_a_video(checkpoint, predict_py, tmp_path, capsys):
    write_video(tmp_path / "clip.avi")
    detector, info = load_detector(checkpoint)
    status, results = predict_py(tmp_path / "clip.avi")
    assert status == 0 and ": 5 frames: " in capsys.readouterr().out
    before, after = list(read_frames(tmp_path / "clip.avi")), list(read_frames(tmp_path / "out/clip.mp4"))
    assert len(before) == len(after) == 5
    assert [frame.seconds for frame in after] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-4)
    for number, (frame, drawn) in enumerate(zip(before, after, strict=True)):
        rows = [row for row in results if row["frame"] == number]
        assert drawn.pixels.shape == frame.pixels.shape
        assert torch.tensor([row["score"] for row in rows]).equal(predict(detector, info, frame.pixels)["scores"])
        assert rows[0]["seconds"] == pytest.approx(number / 10) and "image_id" not in rows[0]


def test_videos_are_turned_as_players_show_them(tmp_path):
    write_video(tmp_path / "turned.mp4", rotation=90)
    write_video(tmp_path / "plain.mp4")
    turned, plain = (next(read_frames(tmp_path / f"{name}.mp4")).pixels for name in ("turned", "plain"))
    assert next(read_frames(tmp_path / "turned.mp4", exif="ignore")).pixels.shape == plain.shape == (3, 60, 90)
    assert turned.shape == (3, 90, 60)
    half = turned[:, :45].float().mean(), plain[:, :, 45:].float().mean()  # counter-clockwise: right comes to the top
    assert abs(half[0] - half[1]) < 2


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_all_frames_of_an_animated_picture(predict_py, tmp_path, suffix):
    pytest.importorskip("av", reason="needs requirements-video.txt")
    first, *others = frames(4, size=(91, 61))
    path = tmp_path / f"moving.{suffix}"
    first.save(path, save_all=True, append_images=others, duration=[100, 200, 300, 400], loop=0)
    status, results = predict_py(path)
    assert status == 0 and {row["frame"] for row in results} == {0, 1, 2, 3}
    seconds = [frame.seconds for frame in read_frames(tmp_path / "out/moving.mp4")]
    assert seconds == pytest.approx([0, 0.1, 0.3, 0.6], abs=1e-3)
    means = [frame.pixels.float().mean().item() for frame in read_frames(path)]
    assert means == pytest.approx([np.asarray(frame).mean() for frame in (first, *others)], abs=3)


def test_without_the_decoder_videos_are_refused_and_animations_are_pictures(predict_py, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    first, *others = frames(3)
    first.save(tmp_path / "in/moving.gif", save_all=True, append_images=others)
    (tmp_path / "in/clip.mp4").write_bytes(b"video")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, results = predict_py(tmp_path / "in")
    assert status == 1 and not any("frame" in row for row in results)
    assert (tmp_path / "out/moving.jpg").exists() and not (tmp_path / "out/clip.mp4").exists()
    said = capsys.readouterr().err
    assert "clip.mp4: videos need PyAV: pip install -r requirements-video.txt; left out" in said


def test_damaged_videos_are_warned_of_and_the_rest_is_done(predict_py, tmp_path, capsys):
    write_video(tmp_path / "whole.avi", count=30)
    content = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "in/text.mp4").write_text("no video")
    (tmp_path / "in/empty.mov").write_bytes(b"")
    Image.new("RGB", (64, 64)).save(tmp_path / "in/a.png")
    status, results = predict_py(tmp_path / "in")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert status == 1
    assert [line.split("in/")[1].split(": ")[0] for line in lines] == ["empty.mov", "text.mp4"]
    assert {path.name for path in (tmp_path / "out").glob("*.*") if path.suffix != ".jsonl"} >= {"a.jpg", "cut.mp4"}
    assert len({row["frame"] for row in results if row["file_name"].endswith("cut.avi")}) >= 10
