"""Two processes train and evaluate as one with the same global batch."""

import json

import pytest
from in_process import train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import load_config
from engine.run.run_folder import RunFolder


def losses(folder: RunFolder) -> list[float]:
    return [point.value for point in EventAccumulator(str(folder.path)).Reload().Scalars("train/loss")]


def run(command, *arguments, processes):
    result = command(*arguments, processes=processes)
    assert result.returncode == 0, result.stderr


def compare(command, config_file, *overrides):
    status, alone = train(config_file, "run.name=p1", *overrides)  # in this process, which has imported everything
    assert status == 0
    run(command, "train.py", "--config", config_file, "run.name=p2", *overrides, processes=2)
    together = RunFolder(load_config(config_file, ["run.name=p2", *overrides]))
    one, two = losses(alone), losses(together)
    assert len(one) == len(two) > 0
    assert two == pytest.approx(one, rel=1e-4)
    return alone, together


def test_global_ranking_and_evaluation_do_not_depend_on_the_number_of_processes(command, config_file):
    one, two = compare(command, config_file, "run.diagnose=true", "evaluation.every=2", "evaluation.train_images=12")
    for before, after in zip(one.metrics(), two.metrics(), strict=True):
        assert after == pytest.approx(before, abs=2e-3)  # the weights agree to float32 rounding only
    lines = [[json.loads(line) for line in folder.diagnosis.read_text().splitlines()] for folder in (one, two)]
    before, after = (next(line for line in content if "loss" in line) for content in lines)
    assert before["num_positives"] > 0 and before.keys() == after.keys()
    for name, value in before.items():  # statistics are of the global batch
        assert after[name] == pytest.approx(value, rel=2e-3), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice", ["loss.name=alrp", "loss.name=focal", "loss.name=dr", "loss.name=freeanchor", "model.family=fcos"]
)
def test_fifty_steps_on_two_processes_equal_those_on_one(command, config_file, choice):
    # a larger rate would amplify the rounding of float32: every ReLU has a kink, and aLRP ranks positives hard
    overrides = (choice, "optimizer.lr=0.001", "schedule.epochs=17", "schedule.max_steps=50")
    compare(command, config_file, *overrides, "evaluation.every=100")


@pytest.mark.slow
def test_evaluation_on_two_processes_counts_each_image_once(command, config_file, tmp_path):
    run(command, "train.py", "--config", config_file, "schedule.max_steps=1", processes=1)
    checkpoint = RunFolder(load_config(config_file)).last
    results = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        run(command, "eval.py", "--ckpt", checkpoint, "--detections", out, processes=processes)
        results.append(json.loads(out.read_text()))
    assert results[0] == results[1]


@pytest.mark.slow
def test_an_error_in_every_process_is_told_once(command, config_file):
    result = command("train.py", "--config", config_file, "optimizer.lr=fast", processes=2)
    assert result.returncode != 0
    assert len([line for line in result.stderr.splitlines() if line.startswith("error:")]) == 1


@pytest.mark.slow
def test_a_process_whose_images_have_no_objects_trains_on(command, config_file, shapes, tmp_path):
    root = tmp_path / "sparse"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).symlink_to(shapes / split)
        content = json.loads((shapes / "annotations" / f"instances_{split}.json").read_text())
        content["annotations"] = [a for a in content["annotations"] if split == "val" or a["image_id"] <= 3]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    compare(command, config_file, f"data.root={root}")


@pytest.mark.slow
def test_batch_norm_is_evaluated_as_the_checkpoint_keeps_it(command, config_file, tmp_path):
    overrides = ("model.norm=batch", "optimizer.ema_decay=0.5")
    run(command, "train.py", "--config", config_file, *overrides, processes=2)
    folder = RunFolder(load_config(config_file, overrides))
    run(command, "eval.py", "--ckpt", folder.last, "--json", tmp_path / "metrics.json", processes=1)
    written = json.loads((tmp_path / "metrics.json").read_text())
    others = ("epoch", "step", "train_AP")
    during = {name: value for name, value in folder.metrics()[-1].items() if name not in others}
    assert during["AR100"] > 0
    assert {name: written[name] for name in during} == pytest.approx(during, abs=1e-9)
