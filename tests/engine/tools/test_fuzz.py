"""scripts/dev/fuzz.py for a short while: whatever a file holds, reading it succeeds or ends in one clean error."""

import runpy
import signal
import warnings

import pytest

SCRIPT = runpy.run_path("scripts/dev/fuzz_targets.py")


@pytest.mark.parametrize("target", sorted(SCRIPT["TARGETS"]))
def test_hostile_files_are_a_success_or_one_clean_error(target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged files
        SCRIPT["fuzz"](target, examples=60, number=1)


def test_an_escaping_exception_is_found(monkeypatch):
    contents, name, _ = SCRIPT["TARGETS"]["results"]

    def careless(path):
        if len(path.read_bytes()) % 2:
            raise KeyError("not caught")

    monkeypatch.setitem(SCRIPT["TARGETS"], "results", (contents, name, careless))
    with pytest.raises(KeyError, match="not caught"):
        SCRIPT["fuzz"]("results", examples=60, number=1)


def test_an_input_that_takes_for_ever_is_found(monkeypatch):
    contents, name, _ = SCRIPT["TARGETS"]["results"]

    def endless(path):
        while True:
            signal.pause()

    monkeypatch.setitem(SCRIPT["TARGETS"], "results", (contents, name, endless))
    monkeypatch.setitem(SCRIPT["fuzz"].__globals__, "SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        SCRIPT["fuzz"]("results", examples=1, number=1)


@pytest.mark.parametrize("name", ["beside.txt", "given/images/train/a.png"])
def test_a_converter_that_touches_a_file_of_the_user_is_found(monkeypatch, tmp_path, name):
    convert = SCRIPT["convert"]
    (tmp_path / "given/images/train").mkdir(parents=True)
    (tmp_path / "given/images/train/a.png").write_bytes(b"theirs")

    def careless(path):
        return {"main": lambda: (tmp_path / name).write_text("ours")}

    monkeypatch.setattr("runpy.run_path", careless)
    with pytest.raises(AssertionError, match=name):
        convert("yolo_to_coco.py", tmp_path)
