"""The cost of training on hardware that is at hand only in part: steps, bytes between processes, hours."""

from dataclasses import dataclass

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from detector import build_detector
from engine.run.config import Config, ConfigError


@dataclass(frozen=True)
class Traffic:
    """Bytes that each of n processes sends in one optimizer step, and receives.

    Attributes:
        gradients: of the trained parameters, averaged.
        ranking: what ranks all processes' logits together.
        norm: BatchNorm's running statistics, or with sync_batch those of every layer and batch.
    """

    gradients: float
    ranking: float
    norm: float

    @property
    def total(self) -> float:
        return self.gradients + self.ranking + self.norm


@dataclass(frozen=True)
class Cost:
    """Of a recipe, without evaluations, checkpoints and waiting for data.

    Attributes:
        steps_per_epoch: optimizer steps.
        compute, communication: seconds of a step.
        epochs: of the recipe.
    """

    steps_per_epoch: int
    compute: float
    communication: float
    epochs: int

    @property
    def epoch_seconds(self) -> tuple[float, float]:
        """With all communication behind computation, and with none: no run is faster or slower than these."""
        hidden = max(self.compute, self.communication)
        return self.steps_per_epoch * hidden, self.steps_per_epoch * (self.compute + self.communication)

    @property
    def recipe_hours(self) -> tuple[float, float]:
        lowest, highest = (seconds * self.epochs / 3600 for seconds in self.epoch_seconds)
        return lowest, highest


def estimate_cost(
    config: Config, num_images: int, rate: float, processes: int, traffic: Traffic, bandwidth: float
) -> Cost:
    """Cost of training a config.

    Args:
        num_images: of the training split.
        rate: images per second that one process trains, alone.
        bandwidth: bytes per second and direction through the narrowest link of the ring of processes.
    Raises:
        ConfigError: the batch size exceeds the data, or processes × data.accumulate does not divide it.
    """
    batch_size, pieces = config.data.batch_size, processes * config.data.accumulate
    if batch_size > num_images or batch_size % pieces:
        raise ConfigError(
            f"data.batch_size={batch_size} must be a multiple of {processes} processes × data.accumulate="
            f"{config.data.accumulate}, and at most the {num_images} images"
        )
    return Cost(
        steps_per_epoch=num_images // batch_size,
        compute=batch_size / processes / rate,
        communication=traffic.total / bandwidth,
        epochs=config.schedule.epochs,
    )


def estimate_traffic(config: Config, num_classes: int, processes: int, positives_per_image: float) -> Traffic:
    """Bytes of a step: all-reduce of S bytes sends 2 (n - 1) / n · S by each of n processes in a ring, all-gather of
    S from each (n - 1) · S, broadcast S. Single numbers, such as the sums of focal loss, are left out.

    Args:
        positives_per_image: positive anchors (`train/num_positives` / `data.batch_size`).
    """
    if processes == 1:
        return Traffic(0, 0, 0)
    with FakeTensorMode():  # shapes only
        detector = build_detector(config, num_classes, load_weights=False)
    reduced, gathered = 2 * (processes - 1) / processes, processes - 1
    trained = sum(parameter.numel() for parameter in detector.parameters() if parameter.requires_grad)
    ranking = 0.0
    if config.loss.ranks and config.loss.ranking == "global":
        # losses/ranking/ranking.py, in every micro-batch: counts; score and value of the positives; the histogram
        positives = positives_per_image * config.data.batch_size / config.data.accumulate
        ranking = gathered * 8 + gathered * 16 * positives / processes + reduced * 16 * (2 * positives + 1)
    norm = 0.0
    if config.model.norm == "batch":  # every forward starts from the main process's buffers
        norm = sum(buffer.numel() * buffer.element_size() for buffer in detector.buffers())
    if config.model.norm == "sync_batch":  # mean, 1 / std and count of a layer forward, two sums backward
        layers = [module.num_features for module in detector.modules() if isinstance(module, nn.SyncBatchNorm)]
        norm = sum(gathered * 4 * (2 * channels + 1) + reduced * 4 * 2 * channels for channels in layers)
    return Traffic(reduced * 4 * trained, config.data.accumulate * ranking, config.data.accumulate * norm)
