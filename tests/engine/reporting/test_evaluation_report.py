"""eval.py --report: the page's numbers are those of the metrics, for any number of classes, whatever their names."""

import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import CocoDetection
from data.output_folder import HEADER, LIST_NAME
from engine.metrics.coco_metrics import match_detections, metrics_of
from engine.reporting.analysis import analyse
from engine.reporting.drawing import FALSE, MISSED, RIGHT
from engine.reporting.evaluation_report import _example
from engine.reporting.figures import (
    confusion_figure,
    figure_png,
    figure_svg,
    lrp_figure,
    per_class_figure,
    precision_recall_figure,
)
from engine.reporting.html_report import render_page

NASTY = ["<script>alert(1)</script>", 'a "quoted" & $x_1$ class', "Zürich 東京"]


class Page(HTMLParser):
    """Cells and references of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.metrics: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if "data-metric" in attributes:
            self.metrics[attributes["data-metric"]] = attributes["data-value"]
        if tag == "tr":
            self.rows.append([])
        elif "data-value" in attributes:
            self.rows[-1].append(attributes["data-value"])
        self.references += [value for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text.append(data)


def evaluation(num_classes, objects, detections, names=None):
    """Matches and metrics of one image; objects and detections are (class, x[, score]) of 10×10 boxes."""
    ground_truth = [
        {"id": i, "image_id": 1, "category_id": c, "bbox": [x, 0, 10, 10], "iscrowd": 0}
        for i, (c, x) in enumerate(objects, start=1)
    ]
    names = names or [f"class {i}" for i in range(1, num_classes + 1)]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": ground_truth,
    }
    found = [{"image_id": 1, "category_id": c, "bbox": [x, 0, 10, 10], "score": score} for c, x, score in detections]
    return content, found


def page_of(tmp_path, num_classes, objects, detections, names=None):
    content, found = evaluation(num_classes, objects, detections, names)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    matches = match_detections(tmp_path / "truth.json", found)
    metrics, analysis = metrics_of(matches), analyse(matches)
    text = render_page("<best>.pt", ["epoch 1"], metrics, analysis, {}, "a: <b>")
    return Page(text), metrics, analysis, text


def check_numbers(page: Page, metrics: dict) -> None:
    """Every number of the metrics is in the page to the last digit."""
    names = [name for name in metrics if name != "per_class"]
    assert set(page.metrics) == set(names)
    for name in names:
        shown = page.metrics[name]
        assert (float(shown) if shown else -1) == metrics[name], name
    rows = {row[0]: row for row in page.rows if row and row[0] in metrics["per_class"]}
    for name, values in metrics["per_class"].items():
        if rows:
            shown = [float(cell) if cell else None for cell in (rows[name][i] for i in (2, 4, 9))]
            assert shown == [values["AP"], values["oLRP"], values["lrp_threshold"]], name


CASES = {
    "one class": (1, [(1, 0), (1, 50)], [(1, 0, 0.9), (1, 20, 0.8)]),
    "no detections": (2, [(1, 0), (2, 50)], []),
    "no ground truth": (2, [], [(1, 0, 0.5)]),
    "a class without ground truth": (3, [(1, 0), (2, 50)], [(1, 0, 0.9), (3, 50, 0.8)]),
    "80 classes": (80, [(c, 20 * c) for c in range(1, 79)], [(c, 20 * c + c % 4, 1 / c) for c in range(1, 70)]),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_the_metrics(tmp_path, case):
    page, metrics, analysis, text = page_of(tmp_path, *CASES[case])
    check_numbers(page, metrics)
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert len(text) < 1_000_000
    for draw in (precision_recall_figure, lrp_figure, per_class_figure):
        assert figure_png(draw(analysis)).startswith(b"\x89PNG")
    assert figure_png(confusion_figure(*analysis.most_confused())).startswith(b"\x89PNG")


def test_undefined_numbers_are_dashes(tmp_path):
    page, _, _, _ = page_of(tmp_path, *CASES["a class without ground truth"])
    assert page.metrics["APl"] == ""
    row = next(row for row in page.rows if row and row[0] == "class 3")
    assert row == ["class 3", "0", *[""] * 8]
    assert "-" in page.text and "-1.000" not in page.text and "None" not in page.text and "nan" not in page.text


def test_names_are_text_and_nothing_else(tmp_path):
    page, _, analysis, text = page_of(tmp_path, 3, [(1, 0), (2, 50), (3, 90)], [(1, 0, 0.9), (2, 50, 0.5)], NASTY)
    assert (
        page.tags.count("script") == 1
        and "dialog" not in page.tags
        and "best" not in page.tags
        and "b>" not in page.tags
    )
    assert "<script>alert" not in text
    assert {row[0] for row in page.rows if row} >= set(NASTY)
    assert "".join(page.text).count(NASTY[1]) >= 3  # table, confusion, legend
    assert figure_png(per_class_figure(analysis))  # with a $ that is no formula
    assert "a: <b>" in page.text


def test_pictures_tell_right_false_and_missed_apart(shapes, write_checkpoint, tmp_path):
    """Each in its colour, where an object is, where a detection on nothing is, and where an object was not found."""
    dataset = CocoDetection(shapes, "val")
    truth = dataset.ground_truth
    content = json.loads(Path(truth).read_text())
    image_id = content["images"][0]["id"]
    own = [entry for entry in content["annotations"] if entry["image_id"] == image_id]
    assert len(own) >= 2
    key = ("image_id", "category_id", "bbox")
    found = [{name: own[0][name] for name in key} | {"score": 0.9}]
    others = [
        {name: entry[name] for name in key} | {"score": 0.8} for entry in content["annotations"] if entry not in own
    ]
    matches = match_detections(truth, found + others, dataset.category_ids, dataset.image_ids.tolist())
    analysis = analyse(matches)
    example, _ = _example(image_id, analysis, matches, dataset)
    counts = analysis.images[image_id]
    assert (counts.tp, counts.fp, counts.fn) == (1, 0, len(own) - 1)

    def has(picture, color):
        return bool((picture == torch.tensor(color).view(3, 1, 1)).all(dim=0).any())

    assert has(example.detections, RIGHT) and has(example.detections, MISSED) and not has(example.detections, FALSE)
    assert not any(has(example.truth, color) for color in (RIGHT, MISSED, FALSE))


def test_legends_are_whole_and_no_name_becomes_boxes(tmp_path):
    names = ["W" * 40, "V" * 40, "東京", "\U000f0000"]
    objects = [(label, 20 * label) for label in (1, 2, 3, 4)]
    detections = [(label, 20 * label, 0.9) for label in (1, 2, 3, 4)]
    _, _, analysis, _ = page_of(tmp_path, 4, objects, detections, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of glyphs that it lacks
        for draw in (lrp_figure, per_class_figure):
            figure_png(draw(analysis))
        figure_png(confusion_figure(*analysis.most_confused()))
    figure = lrp_figure(analysis, 3.5)
    figure_png(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][-1] == "class 4"
    frame = legend.get_window_extent()
    assert frame.x0 >= 0 and frame.x1 <= figure.bbox.x1 and frame.y0 >= 0


def test_the_page_shows_the_verdict_as_text(tmp_path):
    _, metrics, analysis, _ = page_of(tmp_path, *CASES["one class"])
    text = render_page("t", [], metrics, analysis, {}, "", "AP is <b>low</b>")
    assert "AP is &lt;b&gt;low&lt;/b&gt;" in text
    assert 'class="verdict"' not in render_page("t", [], metrics, analysis, {}, "")


def test_marks_are_at_the_lrp_optimal_thresholds(tmp_path):
    detections = [(1, 0, 0.9), (1, 25, 0.7), (1, 50, 0.6), (2, 103, 0.4), (2, 300, 0.2)]
    _, metrics, analysis, _ = page_of(tmp_path, 3, [(1, 0), (1, 50), (2, 100), (3, 150)], detections)
    lines = lrp_figure(analysis).axes[0].lines
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines if line.get_gid() == "optimum"]
    wanted = [(v["lrp_threshold"], v["oLRP"]) for v in metrics["per_class"].values() if v["lrp_threshold"] is not None]
    assert len(wanted) == 2
    assert np.array(marks) == pytest.approx(np.array(wanted), abs=1e-12)
    curves = [line for line in lines if line.get_gid() != "optimum"]
    for curve, (threshold, olrp) in zip(curves, wanted, strict=True):
        assert curve.get_drawstyle() == "steps-pre"
        assert min(curve.get_ydata()) == pytest.approx(olrp)
        assert threshold in curve.get_xdata()


def test_precision_curves_have_the_areas_of_the_metrics(tmp_path):
    _, metrics, analysis, _ = page_of(tmp_path, *CASES["80 classes"])
    legend = precision_recall_figure(analysis).axes[0].get_legend_handles_labels()
    for line, name in zip(legend[0], ("AP50", "AP75", "AP"), strict=True):
        assert np.mean(line.get_ydata()) == pytest.approx(metrics[name])
    assert [label.split(": ")[1] for label in legend[1]] == [f"{metrics[n]:.3f}" for n in ("AP50", "AP75", "AP")]


def test_svg_takes_the_pages_colours_and_is_described(tmp_path):
    _, _, analysis, _ = page_of(tmp_path, *CASES["one class"])
    svg = figure_svg(lrp_figure(analysis), 'a "label" <')
    assert 'aria-label="a &quot;label&quot; &lt;"' in svg
    assert "var(--ink)" in svg and "var(--grid)" in svg
    assert not re.search(r'(fill|stroke)="var', svg)  # only CSS knows variables


def test_eval_writes_page_and_pictures(evaluate_with_report, write_checkpoint, tmp_path, capsys):
    classes = ["circle", "square", "triangle", "star", "cross", "ring"]
    checkpoint = write_checkpoint(tmp_path, classes)
    (tmp_path / "report").mkdir()
    for name in ("worst_4.png", "best_holiday.png"):  # of an earlier report, and somebody's own
        (tmp_path / "report" / name).write_text("old")
    (tmp_path / "report" / LIST_NAME).write_text(f'{json.dumps(HEADER)}\n"worst_4.png"\n')
    assert evaluate_with_report(checkpoint) == 0
    assert "report/index.html" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "m.json").read_text())
    page = Page((tmp_path / "report/index.html").read_text(encoding="utf-8"))
    check_numbers(page, metrics)
    written = {path.stem for path in (tmp_path / "report").glob("*.png")}
    examples = {f"best_{i}" for i in (1, 2, 3)} | {f"worst_{i}" for i in (1, 2, 3)}  # six images in all
    assert page.tags.count("dialog") == 1 and page.tags.count("button") == 2 * len(examples)
    assert written == {"per_class", "precision_recall", "lrp", "confusion", "best_holiday"} | examples
    assert sum(reference.startswith("data:image/jpeg") for reference in page.references) == 2 * len(examples)
    with Image.open(tmp_path / "report/best_1.png") as picture:
        assert picture.width == 2 * 960 + 8
