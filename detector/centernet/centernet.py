"""CenterNet, keypoint triplets (Duan et al., arXiv:1904.08189)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.assignment import Assignment
from detector.centernet.decode import STRIDE, TripletDecoder
from detector.centernet.head import KEYPOINTS, CenterNetHead, Maps
from detector.centernet.objective import CenterNetObjective
from detector.contract import Detections, Targets
from detector.monitor import Monitor
from detector.pyramid import DenseDetector
from losses.precision import at_least_float32


class CenterNet(DenseDetector):
    """Backbone, what makes one map of stride 4 of its features, head, objective and decoder. It starts from no boxes
    and is not exported.

    Args:
        backbone: `Hourglass` with an identity for a neck, or `ResNet` from C2 on.
        neck: features to a list of one map.
    """

    head: CenterNetHead
    class_head = tuple(
        f"head.cls_logits.{kind}.2.{name}" for kind in range(len(KEYPOINTS)) for name in ("weight", "bias")
    )

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: CenterNetHead,
        objective: CenterNetObjective,
        decoder: TripletDecoder,
    ) -> None:
        super().__init__(backbone, neck, head)
        self.objective = objective
        self.decoder = decoder

    def raw_outputs(self, images: Tensor) -> Maps:
        """What the network says of images (B, 3, H, W) in 0..1, in either mode: maps of H / 4 × W / 4, float32."""
        maps: Maps = self.head(self.features(images))
        return Maps(*map(at_least_float32, maps))

    def losses(
        self,
        outputs: Maps,
        targets: Targets,
        group: ProcessGroup | None,
        monitor: Monitor | None,
        assignment: Assignment | None,
    ) -> dict[str, Tensor]:
        height, width = (STRIDE * side for side in outputs.cls_logits.shape[-2:])
        return self.objective(outputs, (height, width), targets, group, monitor)

    def detections(self, outputs: Maps, image_sizes: Sequence[tuple[int, int]]) -> Detections:
        return self.decoder(outputs, image_sizes)

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        return self.raw_outputs(images)._asdict()
