"""A small generated data set and the commands that train and evaluate on it as a user would."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import eval as evaluation
import train as training
from data.synthetic.shapes import generate_shapes
from detector import build_detector
from engine.run.checkpoint import save_checkpoint
from engine.run.config import load_config
from engine.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]

TINY = """
model:
  {backbone: resnet18, norm: group, frozen_stages: 0, weights: null, fpn_channels: 32, head_convs: 1, score_thresh: 0.0}
data: {train_split: train, val_split: val, image_size: 64, augmentation: hvflip, batch_size: 4, workers: 0}
optimizer: {lr: 0.01, base_batch_size: 4, clip_grad_norm: 10.0}
schedule: {epochs: 2, milestones: [1], warmup_steps: 2}
evaluation: {batch_size: 4, train_images: 0}
run: {device: cpu, precision: float32, log_every: 1}
"""


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """Generated data set: 12 training and 6 validation images of 64×64 pixels."""
    root = tmp_path_factory.mktemp("shapes")
    generate_shapes(root, {"train": 12, "val": 6}, image_size=64, seed=1)
    return root


@pytest.fixture(scope="session")
def write_config(shapes):
    """Writes a config that trains six steps on `shapes` in seconds, with its runs beside it: write_config(folder)."""

    def write(folder: Path) -> Path:
        path = folder / "tiny.yaml"
        path.write_text(
            TINY.replace("data: {", f"data: {{root: {shapes}, ").replace("run: {", f"run: {{dir: {folder}/runs, ")
        )
        return path

    return write


@pytest.fixture(scope="session")
def write_checkpoint(write_config):
    """Writes an untrained detector of 20 detections an image, scored around 0.5: write_checkpoint(folder, classes)."""
    weights: dict[int, dict[str, torch.Tensor]] = {}  # by the number of classes

    def write(folder: Path, classes: list[str], **more: object) -> Path:
        config = load_config(write_config(folder), ["model.prior=0.5", "model.detections_per_img=20"])
        if len(classes) not in weights:
            torch.manual_seed(0)
            weights[len(classes)] = build_detector(config, len(classes)).state_dict()
        state = {"model": weights[len(classes)], "config": config.to_dict(), "epoch": 1, "step": 3}
        save_checkpoint(folder / "best.pt", state | {"classes": classes} | more)
        return folder / "best.pt"

    return write


@pytest.fixture
def no_evaluation(monkeypatch) -> None:
    """Trainings in this process leave out what takes them as long as three steps, for tests that do not look at it."""
    monkeypatch.setattr(Trainer, "_evaluate", lambda trainer: setattr(trainer, "evaluated_step", trainer.step))


@pytest.fixture
def config_file(tmp_path, write_config) -> Path:
    return write_config(tmp_path)


@pytest.fixture
def call(monkeypatch):
    """Runs a command of the project in this process: call(module, arguments…) -> its status."""

    def run(module, *arguments: object) -> int | None:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        return module.main()

    return run


@pytest.fixture
def here(call, monkeypatch, capfd):
    """As `command` for train.py and eval.py, in this process, which has imported already what takes seconds."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    monkeypatch.chdir(ROOT)

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
        capfd.readouterr()  # what was said before
        try:
            status = call({"train.py": training, "eval.py": evaluation}[script], *arguments)
        except SystemExit as end:
            status = end.code
        return subprocess.CompletedProcess([script], status or 0, *capfd.readouterr())

    yield run
    root.handlers[:] = handlers
    logging.captureWarnings(False)


@pytest.fixture
def command():
    """Runs a script of the project in a process of its own: command("train.py", …) -> CompletedProcess."""

    def run(*arguments: object, processes: int = 1) -> subprocess.CompletedProcess:
        launcher = [sys.executable]
        if processes > 1:
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            launcher += ["--nproc-per-node", str(processes)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        line = [*launcher, *(str(argument) for argument in arguments)]
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)

    return run
