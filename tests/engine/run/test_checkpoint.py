"""Checkpoint files: atomic writing, checksums, safe reading, one line for what cannot be used."""

import errno
import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from data.files import remove_temporaries, write_atomically
from engine.run.checkpoint import FORMAT, CheckpointError, checkpoint_history, load_checkpoint, save_checkpoint

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


@pytest.mark.parametrize("folder", [".", "..", "/", "tests"])
def test_a_folder_is_not_replaced(folder):
    with pytest.raises(IsADirectoryError) as error:
        write_atomically(Path(folder), lambda file: file.write(b""))
    assert error.value.filename == folder


@pytest.mark.parametrize("size", [10, 100_000], ids=["in the buffer", "beyond the buffer"])
def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path, size):
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    temporary = tmp_path / f".last.pt.{os.getpid()}.tmp"
    temporary.symlink_to("/dev/full")  # every write there ends with the kernel's own ENOSPC
    with pytest.raises(OSError) as caught:
        save_checkpoint(path, STATE | {"model": {"w": torch.zeros(size)}})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert torch.equal(load_checkpoint(path)["model"]["w"], STATE["model"]["w"])
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("keep", [1, 3])
def test_a_failing_rename_leaves_the_old_files(tmp_path, monkeypatch, keep):
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE, keep)
    rename = os.replace

    def fail(source, target):
        if target == path:
            raise OSError(errno.EIO, "Input/output error", str(source), None, str(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        save_checkpoint(path, STATE | {"step": 8}, keep)
    assert caught.value.filename == str(path) and "->" not in str(caught.value)
    assert load_checkpoint(checkpoint_history(path)[0])["step"] == 7
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_made_names_the_file(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(OSError) as caught:
        save_checkpoint(tmp_path / "run" / "last.pt", STATE)
    assert caught.value.filename == str(tmp_path / "run")


def test_the_folder_is_flushed_after_the_rename(tmp_path, monkeypatch):
    calls, rename, flush = [], os.replace, os.fsync

    def watch_flush(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        flush(descriptor)

    def watch_rename(*names):
        calls.append("rename")
        rename(*names)

    monkeypatch.setattr(os, "fsync", watch_flush)
    monkeypatch.setattr(os, "replace", watch_rename)
    save_checkpoint(tmp_path / "last.pt", STATE)
    assert calls == [str(tmp_path / f".last.pt.{os.getpid()}.tmp"), "rename", str(tmp_path)]


def steps(path) -> list[tuple[str, int]]:
    return [(file.name, load_checkpoint(file)["step"]) for file in checkpoint_history(path)]


@pytest.mark.parametrize("links", [True, False])
def test_the_last_k_are_kept(tmp_path, monkeypatch, links):
    def no_links(*names):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "last.pt"
    for step in range(6):
        save_checkpoint(path, STATE | {"step": step}, keep=3)
    assert steps(path) == [("last.pt", 5), ("last.1.pt", 4), ("last.2.pt", 3)]
    save_checkpoint(path, STATE | {"step": 6}, keep=2)
    assert steps(path) == [("last.pt", 6), ("last.1.pt", 5)]
    save_checkpoint(path, STATE | {"step": 7}, keep=3)
    assert steps(path) == [("last.pt", 7), ("last.1.pt", 6), ("last.2.pt", 5)]


@pytest.mark.parametrize("call", ["link", "replace", "unlink"])
@pytest.mark.parametrize("position", range(4))
def test_a_kill_at_any_point_of_the_rotation_loses_nothing(tmp_path, monkeypatch, call, position):
    class Killed(BaseException):
        pass

    path = tmp_path / "last.pt"
    for step in range(4):
        save_checkpoint(path, STATE | {"step": step}, keep=3)
    with monkeypatch.context() as patch:
        real, count = getattr(os, call), iter(range(100))

        def die(*names, **options):
            if next(count) == position:
                raise Killed
            return real(*names, **options)

        patch.setattr(os, call, die)
        try:
            save_checkpoint(path, STATE | {"step": 4}, keep=3)
        except Killed:
            assert load_checkpoint(path)["step"] in (3, 4)
            assert {step for _, step in steps(path)} >= {2, 3}
    remove_temporaries(tmp_path)
    save_checkpoint(path, STATE | {"step": 5}, keep=3)
    assert steps(path)[0] == ("last.pt", 5)
    assert len({file.stat().st_ino for file in tmp_path.iterdir()}) == len(list(tmp_path.iterdir()))


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    good, flipped = tmp_path / "good.pt", tmp_path / "flipped.pt"
    tensors = {"w": torch.arange(50.0), "b": torch.tensor([True, False])}
    save_checkpoint(good, STATE | {"model": tensors})
    content, found = good.read_bytes(), 0
    choose = random.Random(0)
    positions = choose.sample(range(len(content)), 400)
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 1 << choose.randrange(8)
        flipped.write_bytes(changed)
        try:
            state = load_checkpoint(flipped)
        except CheckpointError as error:
            assert "flipped.pt" in str(error)
            found += 1
            continue
        assert all(torch.equal(state["model"][name], value) for name, value in tensors.items())
        assert {key: value for key, value in state.items() if key != "model"} == {
            "format": FORMAT,
            **{key: value for key, value in STATE.items() if key != "model"},
        }
    assert found > 40  # the rest fell into padding and dates


def test_flipped_weights_are_always_found(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    content = bytearray(path.read_bytes())
    start = content.index(STATE["model"]["w"].numpy().tobytes())
    for position in range(start, start + 4000, 97):
        content[position] ^= 4
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"last\.pt: the checkpoint is damaged .* checksum"):
            load_checkpoint(path)
        content[position] ^= 4


def test_another_format_and_malformed_entries_are_refused(tmp_path):
    cases = {
        "format": (FORMAT + 1, f"format {FORMAT + 1} by another version"),
        "step": (-1, "'step' in the checkpoint is malformed"),
        "epoch": ("1", "'epoch'"),
        "classes": ([1], "'classes'"),
        "config": ([], "'config'"),
        "model": ({"w": 3}, "'model'"),
        "ema": ([], "'ema'"),
        "thresholds": ([0.5, 0.5], "'thresholds'"),
        "category_ids": ([1, 2], "'category_ids'"),
        "world_size": (0, "'world_size'"),
        "skipped": (-5, "'skipped'"),
        "skipped_in_a_row": (1.5, "'skipped_in_a_row'"),
        "optimizer": ([], "'optimizer'"),
        "best_ap": ("high", "'best_ap'"),
        "evaluated_ap": ({"AP": "high"}, "'evaluated_ap'"),
        "provenance": ({"torch": 2}, "'provenance'"),
    }
    for name, (value, expected) in cases.items():
        torch.save(STATE | {name: value}, tmp_path / "c.pt")
        with pytest.raises(CheckpointError, match=expected):
            load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("category_ids", "a"),
        ("category_ids", [{}]),
        ("category_ids", [1.0]),
        ("category_ids", [True]),
        ("category_ids", None),
        ("thresholds", [float("nan")]),
        ("thresholds", [2.0]),
        ("thresholds", ["0.5"]),
        ("best_ap", float("nan")),
        ("best_ap", float("inf")),
        ("classes", []),
        ("classes", ["a", "a"]),
        ("world_size", "x"),
        ("world_size", True),
        ("optimizer", None),
    ],
)
def test_entries_that_no_training_writes_are_malformed(tmp_path, name, value):
    torch.save(STATE | {name: value}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=f"'{name}' in the checkpoint is malformed"):
        load_checkpoint(tmp_path / "c.pt")


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


def test_a_checkpoint_from_before_data_exif_gets_the_rule_of_its_time(tmp_path):
    save_checkpoint(tmp_path / "old.pt", STATE | {"config": {"data": {"root": "here"}}})
    assert load_checkpoint(tmp_path / "old.pt")["config"] == {"data": {"root": "here", "exif": "legacy"}}
    save_checkpoint(tmp_path / "new.pt", STATE | {"config": {"data": {"exif": "ignore"}}})
    assert load_checkpoint(tmp_path / "new.pt")["config"] == {"data": {"exif": "ignore"}}


class Exploit:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickling ran code')",))
