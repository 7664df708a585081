"""eval.py on COCO's test-dev: an image_info file, images that lie in another folder, and a results file to submit."""

import json
import shutil

import pytest

from detector import build_detector
from engine import load_config
from engine.run.checkpoint import save_checkpoint


@pytest.fixture
def test_dev(shapes, config_file, tmp_path):
    """eval.py's arguments for a detector on the validation images of `shapes` as COCO hands out test-dev (no
    annotations, images in test2017), and the content of its file."""
    content = json.loads((shapes / "annotations/instances_val.json").read_text())
    del content["annotations"]
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/image_info_test-dev2017.json").write_text(json.dumps(content))
    shutil.copytree(shapes / "val", root / "test2017")
    config = load_config(config_file)
    classes = [category["name"] for category in sorted(content["categories"], key=lambda each: each["id"])]
    state = {"model": build_detector(config, len(classes)).state_dict(), "config": config.to_dict()}
    save_checkpoint(tmp_path / "some.pt", state | {"epoch": 1, "step": 1, "classes": classes})
    return ("eval.py", "--ckpt", tmp_path / "some.pt", "--split", "test-dev2017", f"data.root={root}"), content


def test_without_annotations_and_detections_there_is_nothing_to_do(test_dev, here):
    line, _ = test_dev
    refused = here(*line)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "image_info_test-dev2017.json: no annotations" in refused.stderr and "--detections" in refused.stderr


def test_test_dev_gives_a_results_file_and_no_metrics(test_dev, here, tmp_path):
    line, content = test_dev
    result = here(*line, "--detections", tmp_path / "detections.json", "--json", tmp_path / "metrics.json")
    assert result.returncode == 0, result.stderr
    assert "no metrics" in result.stdout and "nothing for --json or --report to write" in result.stderr
    assert not (tmp_path / "metrics.json").exists()
    detections = json.loads((tmp_path / "detections.json").read_text())
    assert {found["image_id"] for found in detections} == {image["id"] for image in content["images"]}
    known = {category["id"] for category in content["categories"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for found in detections:
        assert set(found) == {"image_id", "category_id", "bbox", "score"} and found["category_id"] in known
        x, y, width, height = found["bbox"]
        image_width, image_height = sizes[found["image_id"]]
        assert min(x, y, width, height) >= 0 and 0 <= found["score"] <= 1
        assert x + width <= image_width + 1e-3 and y + height <= image_height + 1e-3
