"""The log of a run in training: TensorBoard, the diagnosis, files of numbers, the console beside the bar."""

import logging
import math
import shlex
import time
from collections import Counter
from functools import partial
from typing import Any

from data import CocoDetection
from data.counts import counted
from data.files import write_atomically
from detector import Detector
from engine.diagnosis.checks import Finding
from engine.diagnosis.diagnosis import Diagnosis
from engine.diagnosis.generalisation import check_generalisation
from engine.evaluation.evaluator import Evaluation
from engine.metrics.report import format_number, format_report
from engine.reporting.analysis import analyse
from engine.reporting.drawing import draw_example
from engine.reporting.tensorboard import NullLogger, TensorBoardLogger, peak_memory_gb, scalar_metrics
from engine.run.clock import Clock, duration
from engine.run.config import Config
from engine.run.distributed import Processes
from engine.run.log_file import LogFile
from engine.run.precision import resolve_precision
from engine.run.provenance import provenance
from engine.run.run_folder import RunFolder
from engine.run.schedule import Schedule
from engine.run.step_lines import StepLines
from engine.training.batch_picture import draw_batch
from engine.training.epoch_line import EpochLine
from engine.training.train_step import MicroBatch, TrainStep

log = logging.getLogger(__name__)


class RunLog:
    """Reads the numbers of a run and shows them; changes none. Processes other than the main one show nothing.

    Args:
        config, processes, folder, schedule: of the run.
        dataset: the training set.
        stop_step: step at which the run ends.

    Attributes:
        provenance: of this start, for the checkpoints; empty before `open` and on other processes.
    """

    def __init__(
        self,
        config: Config,
        processes: Processes,
        folder: RunFolder,
        schedule: Schedule,
        dataset: CocoDetection,
        stop_step: int,
    ) -> None:
        self.config, self.processes, self.folder, self.schedule = config, processes, folder, schedule
        self.dataset, self.stop_step = dataset, stop_step
        self.provenance: dict[str, str] = {}
        self.epoch_line = EpochLine(schedule, config.data.batch_size)
        self.logger = NullLogger()
        self.diagnosis: Diagnosis | None = None
        self.log_file: LogFile | None = None
        self.curves: StepLines | None = None
        self._began = time.monotonic()  # less what earlier starts took

    def open(self, detector: Detector, step: int) -> None:
        """Opens the files in the run folder, which drops points after `step`, and looks at the data of a new run."""
        if not self.processes.is_main:
            return
        self.log_file = LogFile(self.folder.log)
        device = self.processes.device
        precision = resolve_precision(self.config.run.precision, device)
        self.provenance = provenance(device, self.processes.world_size, precision)
        StepLines(self.folder.provenance, step).append({"step": step, **self.provenance})
        self.curves = StepLines(self.folder.curves, step)
        if self.curves.kept:
            self._began -= self.curves.kept[-1]["seconds"]
        self.logger = TensorBoardLogger(self.folder.path, step, self.config.to_dict())
        if self.config.run.diagnose:
            path, levels = self.folder.diagnosis, detector.level_names
            self.diagnosis = Diagnosis(self.config, self.schedule, path, step, levels)
            if step == 0:
                self.diagnosis.look_at_data(self.dataset)

    def draw_first(self, micro_batch: MicroBatch, detector: Detector) -> None:
        """Draws the micro-batch, unless the run folder already has the picture of an earlier one."""
        if self.processes.is_main and not self.folder.batch_picture.exists():
            images, targets = micro_batch
            picture = draw_batch(detector, images, targets, self.dataset.class_names)
            write_atomically(self.folder.batch_picture, partial(picture.save, format="PNG"))

    def add_step(self, stats: dict[str, float], train_step: TrainStep, clock: Clock) -> str:
        """Shows the step just done: a point on the curves every run.log_every steps, a line at the end of an epoch.

        Returns:
            the text beside the bar.
        """
        step = train_step.done
        text = self.epoch_line.add(stats, step)
        if step % self.config.run.log_every == 0:
            self._add_point(stats, train_step, clock)
        if step % self.schedule.steps_per_epoch == 0 or step == self.stop_step:
            log.info("%s", self.epoch_line.text(step))
            self.epoch_line.start()
        return text

    def _add_point(self, stats: dict[str, float], train_step: TrainStep, clock: Clock) -> None:
        step = train_step.done
        self.logger.scalars("train", stats, step)
        seconds, waited, steps = clock.read()
        performance = {
            "images_per_second": steps * self.config.data.batch_size / seconds,
            "data_wait": waited / seconds,  # share of the time
            "memory_gb": peak_memory_gb(self.processes.device),
        }
        self.logger.scalars("perf", performance, step)
        if self.curves is not None:
            numbers = {name: value if math.isfinite(value) else None for name, value in (stats | performance).items()}
            place = {"step": step, "epoch": step // self.schedule.steps_per_epoch, "seconds": self._seconds()}
            self.curves.append(place | numbers)
        if self.diagnosis is not None:
            self.diagnosis.add(step, stats, train_step.statistics, self.logger)

    def add_evaluation(self, result: Evaluation, epoch: int, step: int, best_ap: float | None) -> None:
        """Shows an evaluation that has ground truth, and adds its numbers to metrics.jsonl; best_ap as of `finish`."""
        if not self.processes.is_main or result.metrics is None:
            return
        assert result.matches is not None and result.thresholds is not None  # they come with the metrics
        log.info("\n%s\n", format_report(result.metrics, f"epoch {epoch}, step {step}"))
        self.logger.scalars("eval", scalar_metrics(result.metrics), step)
        self.logger.curves(analyse(result.matches), step)
        names = self.dataset.class_names
        pictures = [draw_example(example, result.thresholds, names) for example in result.examples]
        self.logger.images("eval/examples", pictures, step)
        record = {name: value for name, value in result.metrics.items() if name != "per_class"}
        self.folder.add_metrics({"epoch": epoch, "step": step, **record})
        log.info("%s", self._accuracy_line(record, best_ap))
        if self.diagnosis is not None:
            self.diagnosis.evaluated(self._generalisation(record, step), step)

    def finish(self, best_ap: float | None) -> None:
        """Says how the training ended: time, best result, what stands in its way, and what to do next.

        Args:
            best_ap: of best.pt, which after a rewind may not be the best of metrics.jsonl; None where there is none.
        """
        spent = duration(self._seconds())
        log.info("done after %d steps in %s; results are in %s", self.stop_step, spent, self.folder.path)
        records = self.folder.metrics() if self.processes.is_main else []
        if not records:
            return
        finding = self._generalisation(records[-1], self.stop_step)
        if finding is not None and self.diagnosis is None:  # else it has said so
            log.warning("%s: %s", finding.cause, finding.message)
        best = _best(records, best_ap)
        if best["AP"] >= 0:  # else there was no object to find
            log.info(
                "best AP on val: %s at epoch %d, in %s", format_number(best["AP"]), best["epoch"], self.folder.best
            )
        checkpoint, report = shlex.quote(str(self.folder.best)), shlex.quote(str(self.folder.path / "report"))
        log.info("next: python eval.py --ckpt %s --report %s", checkpoint, report)

    def _accuracy_line(self, record: dict[str, Any], best_ap: float | None) -> str:
        """AP on both kinds of images, and the best so far."""
        best = _best(self.folder.metrics(), max(record["AP"], record["AP"] if best_ap is None else best_ap))
        text = f"AP {format_number(record['AP'])} on val"
        if "train_AP" in record:
            count = min(self.config.evaluation.train_images, len(self.dataset))
            text += f", {format_number(record['train_AP'])} on {counted(count, 'training image')}"
        return f"{text}; best {format_number(best['AP'])} at epoch {best['epoch']}"

    def _generalisation(self, record: dict[str, Any], step: int) -> Finding | None:
        finished = step >= self.stop_step
        return check_generalisation(record["AP"], record.get("train_AP"), len(self.dataset), self.config, finished)

    def _seconds(self) -> float:
        """Time that the run has taken, earlier starts included."""
        return time.monotonic() - self._began

    def warn_of_unreadable(self) -> None:
        """Warns of the training images that any process had to skip (data.on_error). Every process takes part."""
        unreadable: dict[int, str] = {}
        for found in self.processes.gather(self.dataset.unreadable):
            unreadable |= found
        if unreadable:
            counts = ", ".join(f"{count} {kind}" for kind, count in Counter(unreadable.values()).items())
            images = counted(len(unreadable), "training image")
            log.warning("%s could not be read (%s): skipped", images, counts)

    def flush(self) -> None:
        """Writes out the points so far."""
        self.logger.flush()

    def close(self, error: BaseException | None) -> None:
        """Writes out the last points, and what ended the run if that is an error."""
        self.logger.close()
        if self.log_file is not None:
            self.log_file.close(error)


def _best(records: list[dict[str, Any]], best_ap: float | None) -> dict[str, Any]:
    """The evaluation that best.pt, of this AP, is of; the best of all where there is no best.pt."""
    kept = [record for record in records if best_ap is None or record["AP"] <= best_ap]
    return max(kept or records, key=lambda record: record["AP"])
