"""AP of a choice of images from what is kept, against COCO's AP of copies of these images."""

import numpy as np
import pytest

from engine.metrics.coco_metrics import match_detections, metrics_of
from engine.tools.ablation.kept_matches import KeptMatches

CLASSES = 3


def drawn_documents(generator: np.random.Generator, num_images: int) -> tuple[dict, list[dict]]:
    """Random objects, some of them crowd regions, and detections near them and elsewhere; no two scores are equal."""
    annotations, results = [], []
    for image in range(1, num_images + 1):
        for _ in range(generator.integers(0, 5)):
            category = int(generator.integers(1, CLASSES + 1))
            box = [*generator.uniform(0, 80, 2), *generator.uniform(10, 40, 2)]
            crowd = int(generator.random() < 0.15)
            about = {"image_id": image, "category_id": category}
            annotations.append(
                about | {"id": len(annotations) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            )
            for _ in range(generator.integers(0, 4)):
                shifted = [value + generator.normal(0, 3) for value in box]
                results.append(about | {"bbox": shifted, "score": float(generator.random())})
    truth = {
        "images": [{"id": image} for image in range(1, num_images + 1)],
        "categories": [{"id": label, "name": f"c{label}"} for label in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    return truth, results


def copies(truth: dict, results: list[dict], weights: np.ndarray) -> tuple[dict, list[dict]]:
    """Both documents with `weights` copies of each image, those of an image side by side."""
    ids = [(image["id"], copy) for image, count in zip(truth["images"], weights, strict=True) for copy in range(count)]
    new = {pair: number for number, pair in enumerate(ids, start=1)}
    objects = [
        each | {"image_id": new[pair]} for pair in ids for each in truth["annotations"] if each["image_id"] == pair[0]
    ]
    document = {
        "images": [{"id": number} for number in new.values()],
        "categories": truth["categories"],
        "annotations": [each | {"id": number} for number, each in enumerate(objects, start=1)],
    }
    return document, [each | {"image_id": new[pair]} for pair in ids for each in results if each["image_id"] == pair[0]]


@pytest.mark.parametrize("seed", range(8))
def test_weights_are_copies_of_images(tmp_path, seed):
    generator = np.random.default_rng(seed)
    truth, results = drawn_documents(generator, num_images=12)
    KeptMatches.of(match_detections(truth, results)).save(tmp_path / "matches.npz")
    kept = KeptMatches.load(tmp_path / "matches.npz")
    for weights in (np.ones(12, dtype=int), generator.integers(0, 4, 12)):
        expected = metrics_of(match_detections(*copies(truth, results, weights)))["AP"]
        assert kept.average_precision(weights) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(kept.average_precision(np.zeros(12, dtype=int)))
