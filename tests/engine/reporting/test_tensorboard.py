"""TensorBoard pages, read back from the event files: layout, hyper-parameters in the run itself, configuration."""

import io
import json

import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from engine.metrics.coco_metrics import match_detections
from engine.reporting.analysis import analyse
from engine.reporting.tensorboard import TensorBoardLogger
from engine.run.config import Config

CONFIG = Config().model_copy(update={"optimizer": Config().optimizer.model_copy(update={"clip_grad_norm": 10.0})})


def write(folder, config=CONFIG, step=0) -> EventAccumulator:
    logger = TensorBoardLogger(folder, step, config.to_dict())
    logger.scalars("eval", {"AP": 0.25}, step + 1)
    logger.close()
    return EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0}).Reload()


def hyper_parameters(events: EventAccumulator) -> dict:
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def test_hyper_parameters_are_in_the_run_of_the_curves(tmp_path):
    events = write(tmp_path)
    values = hyper_parameters(events)
    assert values["loss.name"] == "alrp"
    assert (values["optimizer.lr"], values["data.batch_size"], values["run.seed"]) == (0.008, 32, 0)
    assert (values["optimizer.clip_grad_norm"], values["optimizer.ema_decay"]) == (10, "None")
    assert events.Scalars("eval/AP")[-1].value == 0.25
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == ["events"]  # and no run below it


def test_hyper_parameters_stay_after_a_resume(tmp_path):
    write(tmp_path)
    assert hyper_parameters(write(tmp_path, step=5))["loss.name"] == "alrp"


def test_charts_have_distinct_titles_and_match_single_tags(tmp_path):
    (content,) = write(tmp_path).Tensors("custom_scalars__config__")[0].tensor_proto.string_val
    layout = layout_pb2.Layout.FromString(content)
    assert [category.title for category in layout.category] == ["accuracy", "losses", "balance", "optimisation"]
    charts = [chart for category in layout.category for chart in category.chart]
    assert len({chart.title for chart in charts}) == len(charts)
    assert list(charts[0].multiline.tag) == ["^eval/AP$", "^eval/AP50$", "^eval/AP75$"]


def test_the_configuration_is_text_that_reads_back(tmp_path):
    (text,) = write(tmp_path).Tensors("config/text_summary")[0].tensor_proto.string_val
    lines = text.decode().splitlines()
    assert all(line.startswith("    ") for line in lines)  # Markdown's verbatim block
    assert yaml.safe_load("\n".join(line[4:] for line in lines)) == CONFIG.to_dict()


def test_curves_are_pictures_and_none_without_ground_truth(tmp_path):
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "$ <a>"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
    }
    logger = TensorBoardLogger(tmp_path / "run", 0, CONFIG.to_dict())
    for step, annotations in ((1, content["annotations"]), (2, [])):
        (tmp_path / "truth.json").write_text(json.dumps(content | {"annotations": annotations}))
        found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 8], "score": 0.5}]
        logger.curves(analyse(match_detections(tmp_path / "truth.json", found)), step)
    logger.close()
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    for tag in ("curves/precision_recall", "curves/lrp"):
        (image,) = events.Images(tag)
        assert image.step == 1
        picture = Image.open(io.BytesIO(image.encoded_image_string)).convert("L")
        assert picture.size == (350, 280)
        assert picture.getextrema()[0] < 80 and picture.getextrema()[1] == 255
