"""What a training says and leaves: train_AP, log.txt, training.jsonl, provenance.jsonl."""

import json
import sys

import pytest
import torch
from in_process import curve

import train as training
from engine import load_config, load_detector
from engine.evaluation.evaluator import evaluate
from engine.run.checkpoint import load_checkpoint
from engine.run.datasets import evaluation_set
from engine.run.distributed import Processes
from engine.run.run_folder import RunFolder

LINE = ["schedule.epochs=2", "evaluation.every=2"]


def start(config_file, *arguments: str) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", "--config", str(config_file), *arguments])
        assert training.main() == 0
    return RunFolder(load_config(config_file, [word for word in arguments if "=" in word]))


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def watched(tmp_path_factory, write_config):
    """A run of two epochs and one evaluation, of all training images too."""
    return start(write_config(tmp_path_factory.mktemp("watched")), *LINE, "evaluation.train_images=12")


def test_training_images_are_evaluated_without_a_trace_in_the_training(watched, write_config, tmp_path):
    blind = start(write_config(tmp_path), *LINE, "evaluation.every=1")
    own = ("seconds", "images_per_second", "data_wait", "memory_gb")
    with_it, without = (
        [{name: value for name, value in line.items() if name not in own} for line in lines(run.curves)]
        for run in (watched, blind)
    )
    assert with_it == without and len(without) == 6  # to the last digit
    assert "train_AP" in watched.metrics()[-1] and "train_AP" not in blind.metrics()[-1]
    states = [load_checkpoint(run.last)["model"] for run in (watched, blind)]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_train_ap_is_that_of_the_training_split(watched):
    detector, info = load_detector(watched.last)
    split = evaluation_set(info.config, "train")
    result = evaluate(detector, split, info.config, Processes(0, 1, torch.device("cpu")))
    record = watched.metrics()[-1]
    assert record["train_AP"] == pytest.approx(result.metrics["AP"], abs=1e-9)
    assert load_checkpoint(watched.best)["evaluated_ap"] == {name: record[name] for name in ("AP", "train_AP")}


def test_the_log_has_a_line_an_epoch_and_the_end(watched):
    text = watched.log.read_text()
    for epoch, step in ((1, 3), (2, 6)):
        assert text.count(f"epoch {epoch}/2, step {step}: loss ") == 1
    for said in ("12 training and 6 validation images", "on 12 training images; best", "done after 6 steps in "):
        assert said in text
    assert f"best AP on val: {watched.metrics()[0]['AP']:.3f} at epoch 2, in {watched.best}" in text
    assert f"next: python eval.py --ckpt {watched.best} --report {watched.path}/report" in text


def test_checkpoint_and_folder_say_where_the_run_comes_from(watched):
    (start_line,) = lines(watched.provenance)
    found = load_checkpoint(watched.last)["provenance"]
    assert start_line == {"step": 0, **found}
    assert found["command"].split()[1:3] == ["train.py", "--config"] and LINE[0] in found["command"]
    assert (found["torch"], found["processes"]) == (torch.__version__, "1")
    assert found["python"] == sys.version.split()[0]
    assert found["device"].startswith("cpu (")


def test_a_resumed_run_has_every_step_once(config_file):
    early = start(config_file, *LINE, "schedule.max_steps=3")
    checkpoint = early.last.read_bytes()
    start(config_file, *LINE, "--resume", "auto", "schedule.max_steps=5")
    early.last.write_bytes(checkpoint)  # as if killed before the checkpoint
    start(config_file, *LINE, "--resume", "auto")
    assert [record["step"] for record in early.metrics()] == [3, 6]
    assert [step for step, _ in curve(early, "train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines(early.curves)] == [1, 2, 3, 4, 5, 6]
    seconds = [line["seconds"] for line in lines(early.curves)]
    assert seconds == sorted(seconds)
    assert [line["step"] for line in lines(early.provenance)] == [0, 3, 3]
    assert early.log.read_text().count("done after") == 3  # the log keeps every start


def test_the_log_tells_what_ended_a_run(config_file, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(
            "sys.argv", ["train.py", "--config", str(config_file), "optimizer.lr=1e30", "run.max_bad_steps=1"]
        )
        training.main()
    assert ended.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: step ")
    log = (config_file.parent / "runs/tiny/log.txt").read_text()
    assert log.splitlines()[-1].endswith(line)
