"""scripts/dev/fuzz.py for a short while: whatever a file holds, reading it succeeds or ends in one clean error."""

import runpy
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
