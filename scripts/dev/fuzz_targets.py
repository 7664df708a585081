"""Whatever reads files, and the hostile files that scripts/dev/fuzz.py feeds it."""

import io
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
import yaml
from fuzz_trees import INPUT, Tree, convert, voc_trees, yolo_trees
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from data import DatasetError, read_image
from data.annotations import read_annotations
from engine.metrics import DetectionsError, evaluate_detections
from engine.run.checkpoint import CheckpointError, load_checkpoint
from engine.run.config import Config, ConfigError, load_config, parse_config

SECONDS = 10.0  # that one input may take
CLEAN = (DatasetError, ConfigError, CheckpointError, DetectionsError)
COCO = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "height": 48, "width": 64} for i in (1, 2)],
    "annotations": [
        {"id": i, "image_id": i, "category_id": 7, "bbox": [1.0, 2, 30, 20], "area": 600, "iscrowd": 0} for i in (1, 2)
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
}
RESULTS = [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 20], "score": 0.5}]
CHECKPOINT = {
    "model": {"w": torch.arange(6.0)},
    "ema": {"w": torch.ones(6)},
    "config": {"data": {"root": "x"}},
    "epoch": 1,
    "step": 7,
    "classes": ["cat", "dog"],
    "thresholds": [0.5, None],
    "evaluated_step": 7,
    "best_ap": 0.25,
    "evaluated_ap": {"AP": 0.25, "train_AP": 0.5},
    "provenance": {"command": "train.py", "revision": "unknown"},
    "training_set": {"images": 2, "digest": "0f"},
    "precision": "float32",
}

numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([-1, 0, 2**31, 2**63, 10**400, 1e308]))
words = st.one_of(st.text(max_size=8), st.sampled_from(["../x", "/etc/passwd", "a\0b", "\ud800", "é", "null", "1e-4"]))
leaves = st.one_of(st.none(), st.booleans(), numbers, words)
anything = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4))
)


@st.composite
def mutated(draw: st.DrawFn, document: object, values: st.SearchStrategy = anything) -> object:
    """The document with up to three of its parts replaced, removed or repeated."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = document
        parent: Any = None
        key: Any = None
        while isinstance(place, dict | list) and len(place) > 0 and (parent is None or draw(st.booleans())):
            keys = list(place) if isinstance(place, dict) else range(len(place))
            parent, key = place, draw(st.sampled_from(keys))
            place = parent[key]
        if parent is None:
            return draw(values)
        action = draw(st.sampled_from(["replace", "remove", "repeat"]))
        if action == "replace":
            parent[key] = draw(values)
        elif action == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.append(parent[key])
    return document


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with some of them changed, cut out, or the end cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(["flip", "cut", "end", "insert"]))
        if action == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif action == "end":
            del data[at:]
        else:
            data[at:at] = draw(st.binary(max_size=16))
    return bytes(data)


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def encoded(image_format: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, image_format)
    return buffer.getvalue()


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


def as_yaml(document: object) -> bytes:
    return yaml.safe_dump(document, allow_unicode=True).encode(errors="surrogatepass")


def read_both_ways(path: Path) -> None:
    try:
        read_annotations(path)
    except DatasetError:
        read_annotations(path, on_error="skip")


def read_checkpoint(path: Path) -> None:
    parse_config(load_checkpoint(path)["config"], str(path))


def evaluate(path: Path) -> None:
    truth = path.with_name("truth.json")
    truth.write_text(json.dumps(COCO))
    evaluate_detections(truth, path)
    evaluate_detections(path, RESULTS)


def convert_beside(script: str, path: Path) -> None:
    convert(script, path.parent)


texts = st.text(st.characters(codec="utf-8"), max_size=8)
plain = st.recursive(  # what YAML can write
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
)
# name: (contents of the file, its name, who reads it); or of several files, the folder that they are in
TARGETS: dict[str, tuple[st.SearchStrategy[bytes | Tree], str, Callable[[Path], object]]] = {
    "annotations": (
        st.one_of(mutated(COCO).map(as_json), damaged(as_json(COCO)), anything.map(as_json)),
        "instances_x.json",
        read_both_ways,
    ),
    "config": (
        st.one_of(mutated(Config().to_dict(), plain).map(as_yaml), damaged(as_yaml(Config().to_dict())), st.binary()),
        "x.yaml",
        load_config,
    ),
    "checkpoint": (
        st.one_of(
            damaged(saved(CHECKPOINT)),
            st.dictionaries(st.sampled_from(sorted(CHECKPOINT)), anything).map(lambda part: saved(CHECKPOINT | part)),
            st.binary(),
        ),
        "x.pt",
        read_checkpoint,
    ),
    "images": (
        st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]).flatmap(lambda f: damaged(encoded(f))),
        "x.jpg",
        lambda path: read_image(path, (16, 24)),
    ),
    "results": (
        st.one_of(mutated(RESULTS).map(as_json), mutated(COCO).map(as_json), damaged(as_json(RESULTS))),
        "x.json",
        evaluate,
    ),
    "voc": (voc_trees(damaged, words, encoded("PNG")), INPUT, partial(convert_beside, "voc_to_coco.py")),
    "yolo": (yolo_trees(damaged, words, encoded("PNG")), INPUT, partial(convert_beside, "yolo_to_coco.py")),
}


def fuzz(target: str, examples: int, number: int) -> None:
    """Raises what escaped, for the smallest input that hypothesis finds."""
    contents, name, read = TARGETS[target]

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(contents)
    def attack(content: bytes | Tree) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            for file, data in content.items() if isinstance(content, dict) else [("", content)]:
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                (path / file).write_bytes(data)
            try:
                with time_limit():
                    read(path)
            except CLEAN as error:
                assert str(error).strip(), f"says nothing: {error!r}"

    attack()


@contextmanager
def time_limit() -> Iterator[None]:
    """Raises TimeoutError in whatever takes longer than SECONDS."""

    def end(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS:.0f} seconds")

    previous = signal.signal(signal.SIGALRM, end)
    # again and again: an exception that is raised amid a garbage collection is lost, with all that wait for it
    timer = signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *timer)
