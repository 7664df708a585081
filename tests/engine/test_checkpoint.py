"""Checkpoint files: atomic writing, safe reading, one line for what cannot be used."""

import pickle

import pytest
import torch

from engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_atomically

STATE = {"model": {"w": torch.arange(1000.0)}, "config": {}, "epoch": 1, "step": 7, "classes": ["a"]}


def test_round_trip(tmp_path):
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(path, STATE)
    state = load_checkpoint(path)
    assert state["step"] == 7
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fail)
    assert load_checkpoint(path)["step"] == 7
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_unusable_files_are_named(tmp_path):
    good = tmp_path / "good.pt"
    save_checkpoint(good, STATE)
    content = good.read_bytes()
    cases = {
        "empty.pt": (b"", "is empty"),
        "truncated.pt": (content[: len(content) // 2], "truncated"),
        "text.pt": (b"not a checkpoint", "not a checkpoint"),
        "noise.pt": (bytes(range(256)) * 8, "checkpoint"),
        "unsafe.pt": (pickle.dumps(Exploit()), "not a checkpoint"),
    }
    for name, (data, expected) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(tmp_path / name)
        assert name in str(error.value)
        assert expected in str(error.value)
    for path, expected in ((tmp_path / "gone.pt", "no such checkpoint"), (tmp_path, "a folder")):
        with pytest.raises(CheckpointError, match=expected):
            load_checkpoint(path)


def test_somebody_elses_state_dict_is_refused(tmp_path):
    for content in ({"weight": torch.zeros(2)}, [1, 2], torch.zeros(3)):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
            load_checkpoint(tmp_path / "other.pt")


class Exploit:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickling ran code')",))
