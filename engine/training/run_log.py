"""The log of a run in training: TensorBoard, the diagnosis, metrics.jsonl, and the console beside the progress bar."""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial

from data import CocoDetection
from data.files import write_atomically
from detector import Detector
from engine.diagnosis.diagnosis import Diagnosis
from engine.evaluation.evaluator import Evaluation
from engine.metrics.report import format_report
from engine.reporting.analysis import analyse
from engine.reporting.drawing import draw_example
from engine.reporting.tensorboard import NullLogger, TensorBoardLogger, peak_memory_gb, scalar_metrics
from engine.run.clock import Clock
from engine.run.config import Config
from engine.run.distributed import Processes
from engine.run.run_folder import RunFolder
from engine.run.schedule import Schedule
from engine.training.batch_picture import draw_batch
from engine.training.train_step import MicroBatch, TrainStep

log = logging.getLogger(__name__)


class RunLog:
    """Reads the numbers of a run and shows them; changes none. Processes other than the main one show nothing.

    Args:
        config, processes, folder, schedule: of the run.
    """

    def __init__(self, config: Config, processes: Processes, folder: RunFolder, schedule: Schedule) -> None:
        self.config, self.processes, self.folder, self.schedule = config, processes, folder, schedule
        self.logger = NullLogger()
        self.diagnosis: Diagnosis | None = None

    def open(self, detector: Detector, dataset: CocoDetection, step: int) -> None:
        """Opens the files in the run folder, which drops points after `step`, and looks at the data of a new run."""
        if not self.processes.is_main:
            return
        self.logger = TensorBoardLogger(self.folder.path, step, self.config.to_dict())
        if self.config.run.diagnose:
            path, levels = self.folder.diagnosis, detector.level_names
            self.diagnosis = Diagnosis(self.config, self.schedule, path, step, levels)
            if step == 0:
                self.diagnosis.look_at_data(dataset)

    def draw_first(self, micro_batch: MicroBatch, detector: Detector, class_names: Sequence[str]) -> None:
        """Draws the micro-batch, unless the run folder already has the picture of an earlier one."""
        if self.processes.is_main and not self.folder.batch_picture.exists():
            images, targets = micro_batch
            picture = draw_batch(detector, images, targets, class_names)
            write_atomically(self.folder.batch_picture, partial(picture.save, format="PNG"))

    def add_step(self, stats: dict[str, float], train_step: TrainStep, clock: Clock) -> None:
        """Shows the step just done, and the speed since the clock was last read."""
        step = train_step.done
        self.logger.scalars("train", stats, step)
        seconds, waited, steps = clock.read()
        performance = {
            "images_per_second": steps * self.config.data.batch_size / seconds,
            "data_wait": waited / seconds,  # share of the time
            "memory_gb": peak_memory_gb(self.processes.device),
        }
        self.logger.scalars("perf", performance, step)
        if self.diagnosis is not None:
            self.diagnosis.add(step, stats, train_step.statistics, self.logger)

    def add_evaluation(self, result: Evaluation, class_names: Sequence[str], epoch: int, step: int) -> None:
        """Shows an evaluation that has ground truth, and adds its numbers to metrics.jsonl."""
        if not self.processes.is_main or result.metrics is None:
            return
        assert result.matches is not None and result.thresholds is not None  # they come with the metrics
        log.info("\n%s\n", format_report(result.metrics, f"epoch {epoch}, step {step}"))
        self.logger.scalars("eval", scalar_metrics(result.metrics), step)
        self.logger.curves(analyse(result.matches), step)
        pictures = [draw_example(example, result.thresholds, class_names) for example in result.examples]
        self.logger.images("eval/examples", pictures, step)
        record = {name: value for name, value in result.metrics.items() if name != "per_class"}
        self.folder.add_metrics({"epoch": epoch, "step": step, **record})
        if self.diagnosis is not None:
            self.diagnosis.evaluated()

    def warn_of_unreadable(self, dataset: CocoDetection) -> None:
        """Warns of the training images that any process had to skip (data.on_error). Every process takes part."""
        unreadable: dict[int, str] = {}
        for found in self.processes.gather(dataset.unreadable):
            unreadable |= found
        if unreadable:
            counts = ", ".join(f"{count} {kind}" for kind, count in Counter(unreadable.values()).items())
            log.warning("%d training images could not be read and were skipped: %s", len(unreadable), counts)

    def flush(self) -> None:
        """Writes out the points so far."""
        self.logger.flush()

    def close(self) -> None:
        """Writes out the last points."""
        self.logger.close()
