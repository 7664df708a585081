"""What the console says of the steps of a training: the text beside the bar, and a line at the end of an epoch."""

import math
import time
from collections import defaultdict
from collections.abc import Mapping

from engine.run.clock import duration
from engine.run.schedule import Schedule


class EpochLine:
    """Sums up the steps since the last line; reads values and changes none.

    Args:
        schedule: of the run. batch_size: images of a step.
    """

    def __init__(self, schedule: Schedule, batch_size: int) -> None:
        self.schedule, self.batch_size = schedule, batch_size
        self._counted: dict[str, float] = {}  # the newest number of positives: logged steps alone have one
        self.start()

    def start(self) -> None:
        """Begins the next line; the time until now is not its own."""
        self._values: dict[str, list[float]] = defaultdict(list)
        self._begin, self._steps = time.monotonic(), 0

    def add(self, stats: Mapping[str, float], step: int) -> str:
        """Takes the numbers of optimizer step `step`, counted from 1; returns the text beside the bar."""
        self._steps += 1
        for name, value in stats.items():
            if math.isfinite(value):
                self._values[name].append(value)
        if "num_positives" in stats:
            self._counted = {"num_positives": stats["num_positives"]}
        return f"{_numbers({**stats, **self._counted})}, {self._epoch(step)}"

    def text(self, step: int) -> str:
        """The line at the end of step `step`: means over its steps, the rate of the last one, and the speed."""
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        means |= {name: values[-1] for name, values in self._values.items() if name == "lr"}
        seconds = time.monotonic() - self._begin
        speed = self._steps * self.batch_size / max(seconds, 1e-9)
        return f"{self._epoch(step)}, step {step}: {_numbers(means)}, {speed:.3g} images/s, {duration(seconds)}"

    def _epoch(self, step: int) -> str:
        return f"epoch {-(-step // self.schedule.steps_per_epoch)}/{self.schedule.epochs}"


def _numbers(stats: Mapping[str, float]) -> str:
    """The loss with its parts and their weight, the rate and the positives, as far as they are known."""
    names = {name: name.removeprefix("loss_") for name in stats if name.startswith("loss_")}
    names |= {name: name.replace("self_balance", "weight") for name in stats if name.startswith("self_balance")}
    parts = ", ".join(f"{shown} {stats[name]:.3g}" for name, shown in names.items())
    texts = [f"loss {stats['loss']:.3g}" if "loss" in stats else "", f"({parts})" if parts else ""]
    texts = [" ".join(filter(None, texts))]
    if "lr" in stats:
        texts.append(f"lr {stats['lr']:.3g}")
    if "num_positives" in stats:
        texts.append(f"{stats['num_positives']:.0f} positives")
    return ", ".join(filter(None, texts))
