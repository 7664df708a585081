"""The contract of a detector, which is all that engine/ knows of it. A family is one folder whose detector keeps it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.monitor import Monitor
from detector.padded import PaddedDetections
from detector.references import References
from losses.balance import SelfBalance

OBJECTIVE = "objective"  # the part of a detector whose state is that of its training, not of the network
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIZE_DIVISOR = 32  # of both sides of every batch of images

Targets = Sequence[dict[str, Any]]
Detections = list[dict[str, Tensor]]


class Detector(nn.Module, ABC):
    """Images to detections, or with targets to losses.

    State of the training, such as self-balances, lies in a submodule called `objective`, so that fine-tuning can leave
    it behind.

    Attributes:
        backbone: the network that `model.weights` are loaded into.
        references: the reference boxes that predictions start from, or None for a detector without any.
        level_names: of the pyramid, such as P3, in the order in which a monitor counts positives; () for none.
        class_head: names of the parameters whose shape depends on the number of classes; every family has some.
        winograd_parts: names of the submodules in which Winograd's algorithm pays, see `detector.backbones.winograd`.
    """

    backbone: nn.Module
    references: References | None = None
    level_names: tuple[str, ...] = ()
    class_head: tuple[str, ...] = ()
    winograd_parts: tuple[str, ...] = ()

    @abstractmethod
    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor] | Detections:
        """Losses in training mode, detections in evaluation mode; after the network always in float32.

        Args:
            images: (B, 3, H, W) float, RGB in 0..1, H and W multiples of 32.
            targets: training only; per image "boxes" (n, 4) xyxy pixels, "labels" (n,), "crowd" (n,) bool.
            image_sizes: evaluation only; (h, w) of the part of each image that is not padding, to which boxes are
                clipped. Default: (H, W).
            group: training only; process group over whose batches the losses rank, None for this process alone.
            monitor: training only; filled with statistics of the step if given, with those that the detector has.
        Returns:
            Training: scalars "loss", the one to differentiate, and its parts "loss_…", as many as the detector has.
            Evaluation: per image "boxes" (n, 4) xyxy, "scores" (n,), "labels" (n,) int64, best first.
        Raises:
            ValueError: H or W is no multiple of 32; training without targets.
        """

    @abstractmethod
    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Predictions of the network by name, in either mode."""

    def padded_detections(self, images: Tensor, image_sizes: Tensor) -> PaddedDetections:
        """The detections of `forward` as an exported program makes them: no shape depends on what is found.

        It is traced by torch.export, so it can branch on shapes, but not on values.

        Args:
            images: as of `forward`. image_sizes: (B, 2) int64, its heights and widths.
        Raises:
            NotImplementedError: the family cannot be exported.
        """
        raise NotImplementedError

    @abstractmethod
    def compile_network(self) -> None:
        """torch.compile of the network, on its device; names of parameters stay."""

    def balances(self) -> dict[str, SelfBalance]:
        """All self-balances by the head they weigh; "" names the only head, and there may be none."""
        return {}

    def after_step(self, losses: Mapping[str, float] | None, step: int, steps_per_epoch: int) -> None:
        """Updates the self-balances. Call it after every optimizer step, alike on every process.

        Args:
            losses: what `forward` gave, averaged over micro-batches and processes; None for a step that did not count.
            step: optimizer steps done, this one included.
        """
        for head, balance in self.balances().items():
            parts = None if losses is None else (losses[_of_head("loss_cls", head)], losses[_of_head("loss_loc", head)])
            balance.after_step(parts, step, steps_per_epoch)

    def state_numbers(self) -> dict[str, Tensor]:
        """Scalars of the detector's state to log beside the losses: the weight of each self-balance."""
        return {_of_head("self_balance", head): balance.weight for head, balance in self.balances().items()}


def require_contract(detector: Detector) -> None:
    """Raises TypeError for what a new family may have forgotten, and what would otherwise train without a word."""
    family = type(detector).__name__
    parameters = {name for name, _ in detector.named_parameters()}
    if not detector.class_head or not parameters.issuperset(detector.class_head):
        raise TypeError(f"{family}.class_head must name parameters, got {detector.class_head}")
    updated = {id(balance) for balance in detector.balances().values()}
    for name, module in detector.named_modules():
        if not isinstance(module, SelfBalance):
            continue
        if id(module) not in updated:
            raise TypeError(f"{family}.balances() must give {name}, which is else never updated")
        if OBJECTIVE not in name.split("."):
            raise TypeError(f"{family}: {name} is state of the training, and must be in a submodule {OBJECTIVE!r}")


def _of_head(name: str, head: str) -> str:
    return f"{name}_{head}" if head else name
