"""Checkpoints of revision efdaf8b load, evaluate and resume; a run keeps what it was begun with."""

import json

import pytest
import torch
from format1 import BALANCE, LAYOUT_DIGEST, layout_digest, write_format1

from engine.run.checkpoint import FORMAT, load_checkpoint
from engine.run.config import load_config, parse_config
from engine.run.load import load_detector
from engine.run.old_formats import former_defaults

STEPS_PER_EPOCH = 3
OLD_KEYS = {"loc_error", "box_loss", "box_weights", "delta", "self_balance", "balance_every", "alpha", "gamma"}


@pytest.fixture
def class_names(shapes):
    content = json.loads((shapes / "annotations" / "instances_train.json").read_text())
    return [category["name"] for category in content["categories"]]


@pytest.fixture
def write_old(config_file, shapes, class_names):
    """Writes last.pt of an old run of the small configuration with the given keys of `loss`."""

    def write(**loss):
        path = config_file.parent / "runs" / "tiny" / "checkpoints" / "last.pt"
        return path, write_format1(path, shapes, class_names, loss)

    return write


def test_the_writer_writes_what_that_revision_wrote(write_old):
    assert layout_digest(write_old()[1]) == LAYOUT_DIGEST


@pytest.mark.parametrize("name", ["alrp", "ap", "rs", "focal"])
def test_inert_keys_are_dropped_and_those_of_the_loss_keep_their_values(write_old, name):
    path, written = write_old(name=name)
    state = load_checkpoint(path)
    loss = parse_config(state["config"], "last.pt").loss
    assert set(state["config"]["loss"]) == set(loss.key_names())
    assert OLD_KEYS - set(loss.key_names())  # there was something to drop
    for key in OLD_KEYS & set(loss.key_names()):
        assert getattr(loss, key) == written["config"]["loss"][key], key


def test_the_detector_of_an_old_file_has_its_weights(write_old):
    path, written = write_old()
    detector, _ = load_detector(path)
    weights = detector.state_dict()
    assert len(weights) == len(written["ema"]) + 1 and weights["objective.loss.balance.steps"] == 0  # new since
    for name, value in written["ema"].items():
        assert torch.equal(weights[name.replace(BALANCE, "objective.loss.balance.")], value), name


def test_an_old_file_evaluates(write_old, here):
    path, _ = write_old(name="focal")
    done = here("eval.py", "--ckpt", path, "--json", path.parent / "metrics.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((path.parent / "metrics.json").read_text())["AP"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("loss", [{"name": "alrp"}, {"name": "rs"}, {"name": "focal"}])
def test_an_old_run_resumes_as_it_was_begun(write_old, config_file, command, loss):
    path, written = write_old(**loss)
    overrides = [f"loss.name={loss['name']}", "optimizer.ema_decay=0.9"]
    done = command("train.py", "--config", config_file, "--resume", "auto", *overrides)
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(path)
    assert (state["format"], state["step"]) == (FORMAT, 2 * STEPS_PER_EPOCH)
    assert state["config"]["data"]["exif"] == "legacy"
    assert not torch.equal(state["model"]["backbone.conv1.weight"], written["model"]["backbone.conv1.weight"])
    if loss["name"] == "rs":
        assert state["config"]["loss"]["delta"] == 1.0  # the default of its time
        again = command("train.py", "--config", config_file, "--resume", "auto", *overrides, "loss.delta=0.5")
        assert again.returncode == 2 and "loss.delta is 0.5 now and was 1.0" in again.stderr


def test_the_delta_of_old_chooses_no_loss(config_file):
    old = former_defaults({"loss": {"name": "rs", "delta": 1.0}})
    assert load_config(config_file, below=old).loss.name == "alrp"
    assert load_config(config_file, ["loss.name=rs"], below=old).loss.delta == 1.0
    assert load_config(config_file, ["loss.name=rs", "loss.delta=0.25"], below=old).loss.delta == 0.25
