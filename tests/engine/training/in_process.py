"""Training in the process of the test."""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import load_config
from engine.run.distributed import Processes
from engine.run.run_folder import RunFolder
from engine.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device("cpu"))


def train(config_file, *overrides, resume=None, overwrite=False) -> tuple[int, RunFolder]:
    config = load_config(config_file, overrides)
    folder = RunFolder(config)
    state = folder.find_checkpoint(resume, overwrite)
    return Trainer(config, ALONE, folder, state).fit(), folder


def curve(folder: RunFolder, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder.path)).Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]
