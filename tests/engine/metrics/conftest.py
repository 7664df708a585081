"""The least that can be evaluated."""

import pytest


@pytest.fixture
def annotations() -> dict:
    """The least that can be evaluated; annotation and image ids start at 0."""
    return {
        "images": [{"id": 0}, {"id": 1}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"image_id": 0, "category_id": 3, "bbox": [0, 0, 50, 50], "id": 0},
            {"image_id": 1, "category_id": 8, "bbox": [10, 10, 20, 20], "id": 1},
        ],
    }


@pytest.fixture
def detections() -> list[dict]:
    return [
        {"image_id": 0, "category_id": 3, "bbox": [0, 0, 50, 50], "score": 0.9},
        {"image_id": 1, "category_id": 8, "bbox": [10, 10, 20, 20], "score": 0.4},
    ]
