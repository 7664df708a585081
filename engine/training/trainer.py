"""The training loop of a run: steps, evaluations and checkpoints."""

import logging
from typing import Any

from data import train_loader
from data.loader import kill_workers
from engine.run.checkpoint_writer import CheckpointWriter
from engine.run.clock import Clock
from engine.run.config import Config
from engine.run.datasets import check_together, evaluation_set, hold_files, training_set
from engine.run.distributed import Processes
from engine.run.image_check import require_readable
from engine.run.loading import loader_errors, wait_for_each
from engine.run.progress import progress
from engine.run.resume import recipe_facts, require_same_recipe, require_same_step, warn_of_other_processes
from engine.run.resume_command import resume_command
from engine.run.run_folder import RunFolder
from engine.run.schedule import build_schedule
from engine.run.shared_memory import require_shared_memory
from engine.run.stop_signal import StoppedWaiting, StopSignal
from engine.training.bad_steps import report_bad_step
from engine.training.plan import log_plan
from engine.training.run_log import RunLog
from engine.training.train_step import TrainStep
from engine.training.validation import Validation
from engine.training.void_step import end_step_of_the_others

log = logging.getLogger(__name__)


class Trainer:
    """Builds everything that a run needs and trains it; writes nothing before `fit`.

    Args:
        config: the experiment.
        processes: this process among the run's.
        folder: where results go.
        state: checkpoint to continue from; None starts afresh.
    Raises:
        ConfigError, DatasetError, WeightsError, CheckpointError: the run cannot start; alike on every process.
    """

    def __init__(self, config: Config, processes: Processes, folder: RunFolder, state: dict[str, Any] | None) -> None:
        self.config, self.processes, self.folder = config, processes, folder
        require_same_step(None if state is None else state["step"], processes)
        self.dataset = training_set(config)
        self.facts = recipe_facts(config, self.dataset, processes.device)
        if state is not None:
            require_same_recipe(config, state, str(folder.source or "--resume"), self.dataset, self.facts)
        self.eval_set = evaluation_set(config, "val")
        check_together(self.dataset, self.eval_set)
        require_shared_memory(config, self.dataset, self.eval_set)
        if state is None and config.data.on_error == "stop":
            require_readable([self.dataset, self.eval_set], processes)
        self.batches = train_loader(
            self.dataset,
            config.data.batch_size,
            workers=config.data.workers,
            rank=processes.rank,
            world_size=processes.world_size,
            accumulate=config.data.accumulate,
            start_step=0 if state is None else state["step"],
            pinned=processes.device.type == "cuda",
        )
        self.schedule = build_schedule(config, len(self.dataset))
        names = self.dataset.class_names
        self.train_step = TrainStep(config, processes, self.schedule, len(names), state is None, names)
        self.best_ap: float | None = None
        self.thresholds: list[float | None] | None = None
        self.evaluated_step = 0  # of the newest evaluation
        self.evaluated_ap: dict[str, float] = {}  # of that one: AP, and train_AP
        if state is not None:
            self.train_step.load_state_dict(state)
            self.thresholds, self.evaluated_step = state.get("thresholds"), state.get("evaluated_step", 0)
            self.evaluated_ap = state.get("evaluated_ap", {})
            # a run folder that continues another one's checkpoint starts without a best.pt
            self.best_ap = processes.from_main(state.get("best_ap") if folder.has_best else None)
            warn_of_other_processes(state, processes)
        total = self.schedule.total_steps
        # a checkpoint may lie behind a schedule.max_steps that was lowered
        self.stop_step = max(self.step, min(total, config.schedule.max_steps or total))
        self.validation = Validation(config, processes, self.dataset, self.eval_set)
        self._rewound = state if folder.rewound and processes.is_main else None
        self.run_log = RunLog(config, processes, folder, self.schedule, self.dataset, self.stop_step)
        self.writer = CheckpointWriter()

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.train_step.done

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.step // self.schedule.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are done and evaluated."""
        return self.step >= self.stop_step and not self._evaluation_due

    @property
    def _evaluation_due(self) -> bool:
        """Whether the weights of this step are to be evaluated and have not been."""
        due = self.step % (self.schedule.steps_per_epoch * self.config.evaluation.every) == 0
        return (due or self.step >= self.stop_step) and self.evaluated_step != self.step

    def fit(self) -> int:
        """Trains to the end of the schedule or `schedule.max_steps`, evaluating on the way and at the end.

        Returns:
            exit status: 0 when done, 128 + signal number when a signal stopped it after a checkpoint.
        Raises:
            TrainingError: too many steps in a row without a finite loss and gradient.
            LoaderError: a loader process died, or no batch came for minutes.
            SystemExit: a signal stopped it within an evaluation, where the processes cannot end in step.
        """
        with StopSignal(self.processes.store) as stop:
            error: BaseException | None = None
            try:
                with loader_errors():  # within, so that log.txt gets the line and not PyTorch's traceback
                    return self._fit(stop)
            except BaseException as raised:
                error = raised
                raise
            finally:
                self.run_log.close(error)  # also when it fails: the last points are then the interesting ones

    def _fit(self, stop: StopSignal) -> int:
        log_plan(self.train_step, self.dataset, self.eval_set, self.stop_step)
        if self.processes.is_main:
            if self._rewound is not None:  # first, or a kill would leave the newest checkpoint without what it wrote
                self.folder.rewind(self._rewound)
                self._rewound = None
            self.folder.begin(self.config, self.step, self.evaluated_step)
        self.run_log.open(self.train_step.detector, self.step)
        if self.config.data.cache and not self.finished:
            hold_files(self.dataset, self.processes)
        with self.writer:
            stopped = self._train(stop)
        self.run_log.warn_of_unreadable()
        if not stopped:
            self.run_log.finish(self.best_ap)
            return 0
        signal_number = max(self.processes.gather(stop.number))  # the signal may have reached some processes only
        log.info("stopped by signal %d after step %d; continue with", signal_number, self.step)
        log.info("%s", resume_command(self.folder.path))
        return 128 + signal_number

    def _train(self, stop: StopSignal) -> bool:
        """Takes steps, with evaluations and checkpoints between them, until the end or a signal.

        Returns:
            whether a signal to any process ended it.
        """
        batches, clock, hidden = wait_for_each(self.batches), Clock(), not self.processes.is_main
        with progress(total=self.stop_step, initial=self.step, desc="train", unit="step", disable=hidden) as bar:
            while True:
                # First in the loop, so that a run that was stopped between a step and its evaluation resumes with it.
                if self._evaluation_due:
                    self._evaluate_until(stop)
                    self._save(clock)
                    clock.restart()
                    self.run_log.epoch_line.start()
                if self.finished:
                    return False
                # After a signal the next batch may come too late: whoever sent it kills what does not end in time.
                try:
                    with clock.waiting_for_data():
                        micro_batches = [next(batches) for _ in range(self.config.data.accumulate)]
                except StoppedWaiting:
                    end_step_of_the_others(self.train_step)
                    self._save(clock)
                    return True
                self.run_log.draw_first(micro_batches[0], self.train_step.detector)
                # The request to stop travels with the losses, so that all processes stop after the same step.
                done = self.step
                stats, must_stop = self.train_step(micro_batches, bool(stop.number))
                if self.step == done:  # another process was without data
                    self._save(clock)
                    return must_stop
                if self.train_step.skipped_in_a_row:
                    report_bad_step(self.train_step, stats, micro_batches, self.folder.path)
                clock.step_done()
                bar.set_postfix_str(self.run_log.add_step(stats, self.train_step, clock), refresh=False)
                bar.update()
                # Evaluations are long, so save before one: a kill within it then costs no step.
                epoch_ends = self.step % self.schedule.steps_per_epoch == 0
                if epoch_ends or must_stop or self._evaluation_due or self._checkpoint_due(clock):
                    self._save(clock)
                self.writer.check()
                if must_stop:
                    return True

    def _evaluate_until(self, stop: StopSignal) -> None:
        """Evaluates, and ends the process if after a signal no data come to it or to another process.

        Nothing is lost: last.pt has the steps before an evaluation, and a resumed run evaluates again.
        """
        try:
            self._evaluate()
        except StoppedWaiting:
            kill_workers()
            log.warning("no data came after the signal: the evaluation is left out")
        except RuntimeError as error:
            if not stop.number or self.processes.world_size == 1:
                raise
            log.warning("the evaluation is left out: %s", str(error).splitlines()[0])
        else:
            return
        raise SystemExit(128 + stop.number)

    def _evaluate(self) -> None:
        """Evaluates the weights, shows the result, and keeps the checkpoint if it is the best."""
        result = self.validation(self.train_step.eval_detector)
        self.train_step.detector.train()
        self.writer.wait()  # results are there only beside a checkpoint that a killed run goes on from
        self.thresholds, self.evaluated_step = result.thresholds, self.step
        metrics = result.metrics or {}
        self.evaluated_ap = {name: metrics[name] for name in ("AP", "train_AP") if name in metrics}
        self.run_log.add_evaluation(result, self.epoch, self.step, self.best_ap)
        ap = metrics.get("AP", -1.0)
        if self.best_ap is None or ap > self.best_ap or ap == -1:  # without an object to find, the newest is the best
            self.best_ap = ap
            if self.processes.is_main:
                self.writer.save(self.folder.save_best, self._state())

    def _save(self, clock: Clock) -> None:
        """Hands last.pt over to the writer, beside which the loop goes on."""
        if self.processes.is_main:
            self.run_log.flush()  # first, so that no point before the checkpoint can be lost
            self.writer.save(self.folder.save_last, self._state())
        clock.saved()

    def _state(self) -> dict[str, Any]:
        return (
            self.train_step.state_dict()
            | self.facts
            | {
                "config": self.config.to_dict(),
                "epoch": self.epoch,
                "classes": self.dataset.class_names,
                "category_ids": self.dataset.category_ids,
                "thresholds": self.thresholds,
                "best_ap": self.best_ap,
                "evaluated_step": self.evaluated_step,
                "evaluated_ap": self.evaluated_ap,
                "provenance": self.run_log.provenance,
                "world_size": self.processes.world_size,
            }
        )

    def _checkpoint_due(self, clock: Clock) -> bool:
        every, minutes = self.config.run.checkpoint_every, self.config.run.checkpoint_minutes
        return (every is not None and self.step % every == 0) or (
            minutes is not None and clock.minutes_since_save() >= minutes
        )
