"""The model in training and the step that advances it: forward, backward, joint finiteness, update."""

import math
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data import padded_size
from data.loader import blank_batch
from data.seeds import mix_seed
from data.targets import BatchTargets
from detector import Detector, build_detector
from detector.backbones.winograd import use_winograd
from detector.monitor import GRADIENT_MASS, Monitor
from engine.run.checkpoint import CheckpointError
from engine.run.config import Config, ConfigError
from engine.run.distributed import Processes
from engine.run.images import to_network
from engine.run.precision import autocast
from engine.run.schedule import Schedule
from engine.training.buckets import settle_buckets
from engine.training.ema import WeightEMA
from engine.training.network_graphs import can_be_captured, capture_network
from engine.training.optimizer import build_optimizer, load_optimizer
from engine.training.step_buffers import StepBuffers

MONITORED = (  # numbers of a step
    "num_positives",
    "num_positives_rpn",
    "num_relevant_negatives",
    "grad_mass_positive",
    "grad_mass_negative",
)
MicroBatch = tuple[Tensor, BatchTargets]  # uint8 images (b, 3, H, W) and their targets


class TrainingError(RuntimeError):
    """Training that cannot go on; the message is one line for the user."""

    exit_status = 1


class TrainStep:
    """Weights, optimizer, EMA and self-balance of a run; calling it takes one optimizer step.

    Args:
        config, processes, schedule: of the run.
        num_classes: K. class_names: see `build_detector`.
        load_weights: False when `load_state_dict` follows, so that no ImageNet weights are asked for.
    """

    def __init__(
        self,
        config: Config,
        processes: Processes,
        schedule: Schedule,
        num_classes: int,
        load_weights: bool,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.config, self.processes, self.schedule = config, processes, schedule
        if config.model.norm == "sync_batch" and processes.world_size > 1 and processes.device.type == "cpu":
            raise ConfigError("model.norm: sync_batch needs GPUs; on CPU processes use group")
        torch.manual_seed(config.run.seed)
        detector = build_detector(config, num_classes, load_weights, class_names)
        # torch.nn.Module's annotations lack memory_format
        detector = detector.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.detector: Detector = detector.train()
        use_winograd(self.detector, training=config.run.winograd, evaluation=config.evaluation.winograd)
        ranks_globally = config.loss.ranking == "global"
        self.group = processes.group if ranks_globally else None
        # DistributedDataParallel averages over the processes, but the gradients of a global loss add up
        self.loss_scale = (processes.world_size if ranks_globally else 1) / config.data.accumulate
        self.ema = WeightEMA(self.detector, config.optimizer.ema_decay) if config.optimizer.ema_decay else None
        self.parameters = [parameter for parameter in self.detector.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(self.parameters, config.optimizer, schedule.lr)
        self.model: nn.Module = self.detector
        if processes.world_size > 1:
            self.model = DistributedDataParallel(
                self.detector,
                broadcast_buffers=config.model.norm == "batch",  # the only norm whose statistics differ
                gradient_as_bucket_view=True,
            )
            settle_buckets(self.model)
        self.buffers = StepBuffers(self.detector)
        self.statistics: dict[str, Tensor] = {}  # of the latest step if that was watched, see `Monitor`
        if config.run.compile and not any(map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))):
            raise ConfigError("run.compile: needs a C++ compiler and found none; install g++ or use false")
        self.captured = False  # whether the network runs as CUDA graphs
        if can_be_captured(self.detector, config, processes.device):
            images = self._to_device(*self.blank_batch())[0]
            self.captured = capture_network(self.detector, images, config.run.precision, config.run.compile)
        elif config.run.compile:
            self.detector.compile_network()
        self.done = 0  # optimizer steps, the skipped ones included
        self.skipped = 0
        self.skipped_in_a_row = 0  # up to the latest step

    @property
    def eval_detector(self) -> nn.Module:
        """The weights to evaluate: the EMA where there is one."""
        return self.detector if self.ema is None else self.ema.module

    def __call__(
        self, micro_batches: list[MicroBatch], stop: bool = False, void: bool = False, watched: bool = False
    ) -> tuple[dict[str, float], bool]:
        """One optimizer step on the micro-batches of this process.

        A loss or gradient that is not finite on any process lets no process update, and leaves no trace in any buffer;
        the step still counts, also in `skipped` and `skipped_in_a_row`. Random numbers depend on seed, step and process
        only.

        Args:
            stop: whether this process was asked to stop.
            void: the micro-batches stand in for those of this step, only to take part in the collectives of the other
                processes. No process then takes the step, and `done` stays.
            watched: collect what a logged step does, if it is none too.
        Returns:
            (numbers of the step, the same on every process; whether any process was asked to stop).
        """
        # Functions of the step, so that a resumed run takes the steps that the stopped one would have taken.
        torch.manual_seed(mix_seed(self.config.run.seed, self.done, self.processes.rank))
        rate = self.schedule.learning_rate(self.done)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = rate
        self._clear_gradients()
        watched = watched or (self.done + 1) % self.config.run.log_every == 0
        self.buffers.keep()
        stats, norm, stop = self.forward_backward(micro_batches, stop, watched, void)
        if stats.pop("void") > 0:  # the same number on every process, so all leave here or none
            self.buffers.restore()
            return stats, stop
        stats["lr"] = rate
        # Adam's steps have lengths of their own, whatever the gradient's
        if watched and self.config.run.diagnose and self.config.optimizer.name == "sgd":
            stats["update_ratio"] = self._update_ratio(stats["grad_norm"], rate)
        self.done += 1
        # Both numbers are joined over the processes: NaN from one is NaN on all, and all skip the step.
        finite = math.isfinite(stats["loss"]) and math.isfinite(stats["grad_norm"])
        self.buffers.settle(counts=finite)
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        stats["skipped_steps"] = self.skipped
        self.detector.after_step(stats if finite else None, self.done, self.schedule.steps_per_epoch)
        if not finite:
            return stats, stop
        if self.config.optimizer.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.optimizer.clip_grad_norm, norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.detector, self.done - 1)
        return stats, stop

    def forward_backward(
        self, micro_batches: list[MicroBatch], stop: bool = False, watched: bool = False, void: bool = False
    ) -> tuple[dict[str, float], Tensor, bool]:
        """Accumulates the gradients of the batch, and reads all numbers of the step back from the device at once.

        Returns:
            (losses averaged over micro-batches and processes, norm of the gradient and numbers of the detector's state,
            with what it monitors when `watched`, and "void", above 0 if any process said so; the norm as a tensor;
            whether any process was asked to stop).
        """
        joint = self.model if isinstance(self.model, DistributedDataParallel) else None
        parts: list[Tensor] = []  # of the means, one from each micro-batch
        names: list[str] = []
        monitors: list[dict[str, Tensor]] = []
        self.statistics = {}
        for index, (images, targets) in enumerate(micro_batches):
            images, targets = self._to_device(images, targets)
            monitor = Monitor(self.config.run.diagnose) if watched else None
            last = index == len(micro_batches) - 1
            # Gradients are averaged over the processes once, in the backward pass of the last micro-batch.
            with nullcontext() if last or joint is None else joint.no_sync():
                with autocast(self.config.run.precision, self.processes.device):
                    losses = self.model(images, targets, group=self.group, monitor=monitor)
                names = list(losses)
                flags = [images.new_full((), float(flag)) for flag in (stop, void)]  # filled there: a copy would wait
                values = torch.stack([*(losses[name].detach().float() for name in names), *flags])
                parts.append(self.processes.mean(values))
                (losses["loss"] * self.loss_scale).backward()
            if monitor is not None:
                monitors.append(monitor.values)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        means = sum(parts[1:], parts[0]) / len(micro_batches)
        numbers = dict(zip((*names, "stop", "void"), means, strict=True)) | {"grad_norm": norm}
        numbers |= {name: value.float() for name, value in self.detector.state_numbers().items()}
        # One copy for all numbers: every copy would wait for the GPU.
        stats = dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
        stop = stats.pop("stop") > 0
        if monitors:
            self.statistics = self._read_monitors(monitors)
            stats |= {name: value.item() for name, value in self.statistics.items() if name in MONITORED}
        return stats, norm, stop

    def blank_batch(self) -> MicroBatch:
        """A micro-batch of this process without objects, of the size that `data.image_size` says."""
        data = self.config.data
        return blank_batch(
            data.batch_size // (self.processes.world_size * data.accumulate), padded_size(data.train_size)
        )

    def _clear_gradients(self) -> None:
        """None where the next pass may lend its own memory; that of graphs holds one pass, so several need zeros."""
        add_up = self.captured and self.config.data.accumulate > 1
        self.optimizer.zero_grad(set_to_none=not add_up)
        for parameter in self.parameters if add_up else []:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _to_device(self, images: Tensor, targets: BatchTargets) -> MicroBatch:
        device = self.processes.device
        return to_network(images, device), targets.to(device)

    def _update_ratio(self, grad_norm: float, rate: float) -> float:
        """Length of a step without momentum, relative to that of all weights."""
        clip = self.config.optimizer.clip_grad_norm or math.inf
        return rate * min(grad_norm, clip) / torch.nn.utils.get_total_norm(self.parameters).item()

    def _read_monitors(self, monitors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The statistics of the whole batch, on the CPU."""
        names, like = sorted(monitors[0]), monitors[0]
        if not names:  # a detector may have nothing to monitor
            return {}
        flat = [torch.cat([monitor[name].double().flatten() for name in names]) for monitor in monitors]
        means = self.processes.mean(torch.stack(flat).sum(0)).cpu().split([like[name].numel() for name in names])
        # a mass is of the scaled loss, so its mean over the processes is the batch's; all else adds up
        count = self.processes.world_size
        return {
            name: (mean * (1 if name.startswith(GRADIENT_MASS) else count)).view(like[name].shape)
            for name, mean in zip(names, means, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, EMA and counts for the checkpoint."""
        state = {
            "model": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.done,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }
        if self.ema is not None:
            state["ema"] = self.ema.module.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint of the same recipe. Raises CheckpointError where it does not fit."""
        try:
            self.detector.load_state_dict(state["model"])
            load_optimizer(self.optimizer, state["optimizer"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
            self.skipped, self.skipped_in_a_row = int(state["skipped"]), int(state["skipped_in_a_row"])
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise CheckpointError(f"--resume: the checkpoint does not fit this configuration: {reason}") from error
        self.done = state["step"]
