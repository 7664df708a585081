"""`train.py --dry-run` and the picture of the first batch."""

import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor

import train
from data import train_loader
from data.transforms import Resize
from detector import build_detector
from detector.boxes import pairwise_iou
from engine import load_config
from engine.reporting.drawing import class_color
from engine.run.clock import duration
from engine.run.datasets import training_set
from engine.training.batch_picture import HEADER, draw_batch

SIDES = [f"{group}.{side}=64" for group in ("data", "evaluation") for side in ("short_side", "long_side")]


def call(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["train.py", *(str(argument) for argument in arguments)])
    return train.main()


def test_a_dry_run_prints_the_plan_and_writes_nothing(monkeypatch, config_file, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert call(monkeypatch, "--config", config_file, "--dry-run") == 0
    printed = capsys.readouterr()
    lines = dict(line.split(None, 1) for line in printed.out.splitlines())
    assert lines["images"] == "12 training, 6 validation"
    assert lines["batch"].startswith("4 images of 64×64 pixels")
    assert lines["steps"] == "3 an epoch, 6 in all"
    assert len({len(line) - len(line[19:].lstrip()) for line in printed.out.splitlines()} | {19}) == 1
    assert "0.01 after 2 steps of warm-up, × 0.1 after epochs [1]" in lines["learning"]
    assert float(lines["memory"].split()[0]) > 0.1
    assert "s a step" in lines["time"]
    assert "loss_cls" in printed.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_counts_the_steps_to_do_and_takes_a_logged_one(monkeypatch, config_file, capsys):
    watched = []
    monkeypatch.setattr("engine.training.train_step.Monitor", lambda detailed: watched.append(detailed))
    monkeypatch.setattr("engine.training.dry_run.median", lambda _: 100.0)  # seconds a step
    assert call(monkeypatch, "--config", config_file, "--dry-run", "run.log_every=1000") == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert "about 1e+02 s a step, 5.0 minutes an epoch, 10.0 minutes in all" in lines["time"]
    assert watched == [False]


WARNINGS = (
    "the learning rate never falls",
    "the warm-up takes",
    "evaluation stretches them",
    "data.image_size does nothing",
)


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (["schedule.milestones=[2]"], "the learning rate never falls: schedule.milestones begin at epoch 2, of 2"),
        (["schedule.warmup_steps=4"], "the warm-up takes 4 of 6 steps"),
        (["data.short_side=64", "data.long_side=64"], "evaluation stretches them to data.image_size"),
        ([*SIDES, "data.image_size=96"], "data.image_size does nothing beside data.short_side"),
        ([*SIDES, "data.image_size=512"], None),  # the default
        ([], None),
    ],
)
def test_a_plan_that_does_not_fit_itself_is_warned_of(monkeypatch, config_file, capsys, overrides, warning):
    assert call(monkeypatch, "--config", config_file, "--dry-run", *overrides) == 0
    said = capsys.readouterr().err
    assert warning is None or warning in said
    assert sum(each in said for each in WARNINGS) == (warning is not None)


def test_a_dry_run_of_crops_names_the_size_of_the_windows(monkeypatch, config_file, capsys):
    crops = ("data.augmentation=crop", "data.image_size=[32, 64]")
    assert call(monkeypatch, "--config", config_file, "--dry-run", *crops) == 0
    assert "4 images of 64×32 pixels" in capsys.readouterr().out


def test_a_dry_run_that_diverges_fails(monkeypatch, config_file, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "--config", config_file, "--dry-run", "optimizer.lr=1e30", "optimizer.clip_grad_norm=null")
    assert stop.value.code == 1
    assert "error: dry run: the loss is not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.2, "7 seconds"), (119, "119 seconds"), (1800, "30.0 minutes"), (200_000, "2.3 days")]
)
def test_durations_are_said_in_a_fitting_unit(seconds, text):
    assert duration(seconds) == text


def test_the_first_batch_is_drawn_with_boxes_and_positive_anchors(config_file):
    config = load_config(config_file)
    dataset = training_set(config)
    dataset.transform = Resize((64, 64))
    images, targets = next(iter(train_loader(dataset, 4)))
    detector = build_detector(config, len(dataset.class_names))
    picture = draw_batch(detector, images, targets, dataset.class_names)
    tile = 320  # 64 pixels five times
    assert picture.size == (4 * (tile + 2), tile + HEADER + 2)

    pixels = pil_to_tensor(picture)
    x1, y1, _, y2 = (5 * targets[1]["boxes"][0]).round().int().tolist()
    left = pixels[:, HEADER + y1 : HEADER + y2, tile + 2 + x1]
    color = torch.tensor(class_color(int(targets[1]["labels"][0])))
    assert left.T.eq(color).all(dim=1).float().mean() > 0.5

    # the best anchor of an object is positive, and seen where it does not lie on a box
    no_objects = [{key: target[key][:0] for key in ("boxes", "labels", "crowd")} for target in targets]
    bare = pil_to_tensor(draw_batch(detector, images, no_objects, dataset.class_names))
    anchors = torch.cat(detector.anchor_generator([(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]))
    best = 5 * anchors[pairwise_iou(targets[0]["boxes"][:1], anchors).argmax()]
    x1, y1, x2, y2 = best.round().int().tolist()
    edges = [(x, (y1 + y2) // 2) for x in (x1, x2)] + [((x1 + x2) // 2, y) for y in (y1, y2)]
    edges = [(x, y) for x, y in edges if 0 <= x < tile and 0 <= y < tile]
    assert edges
    for x, y in edges:
        assert not torch.equal(pixels[:, HEADER + y, x], bare[:, HEADER + y, x])
    assert (pixels != bare).any(dim=0).float().mean() < 0.5


def test_a_lost_loader_process_is_one_line(monkeypatch, config_file, capsys):
    def lost(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr("engine.training.train_step.TrainStep.__call__", lost)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "--config", config_file, "--dry-run")
    assert stop.value.code == 1
    assert "error: a loader process was lost (is killed by signal: Killed)" in capsys.readouterr().err
