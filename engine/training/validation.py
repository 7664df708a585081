"""Evaluations during training: of the validation split, and beside it of a fixed sample of the training images."""

from torch import nn

from data import CocoDetection
from engine.evaluation.evaluator import Evaluation, evaluate
from engine.run.config import Config
from engine.run.distributed import Processes

NUM_EXAMPLES = 4  # pictures on the TensorBoard page per evaluation


class Validation:
    """Evaluates weights in training.

    Args:
        config, processes: of the run.
        dataset, eval_set: the training and the validation split.
    """

    def __init__(self, config: Config, processes: Processes, dataset: CocoDetection, eval_set: CocoDetection) -> None:
        self.config, self.processes, self.eval_set = config, processes, eval_set
        count = config.evaluation.train_images
        self.sample = dataset.sample(count, eval_set.transform) if count else None

    def __call__(self, detector: nn.Module) -> Evaluation:
        """The evaluation of the validation split, with `train_AP` of the sample among its metrics where there is one.

        Changes no random state, and no weights; leaves the detector in evaluation mode.
        """
        # The running statistics of BatchNorm differ between processes: all take the main one's, as the checkpoint does.
        self.processes.copy_buffers_from_main(detector)
        result = evaluate(detector, self.eval_set, self.config, self.processes, NUM_EXAMPLES)
        if self.sample is not None and result.metrics is not None:
            seen = evaluate(detector, self.sample, self.config, self.processes)
            assert seen.metrics is not None  # training images have annotations
            result.metrics["train_AP"] = seen.metrics["AP"]
        return result
