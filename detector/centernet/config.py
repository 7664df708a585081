"""Settings of CenterNet."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detector.config import BackboneName, ModelConfig, PositiveInt, Probability


class CenterNetConfig(ModelConfig):
    """Network and decoding of CenterNet: `backbone: hourglass52` is the published network, a ResNet one in small.

    In small the branches are on the finest map of the ResNet's pyramid, which nobody has published.
    """

    family: Literal["centernet"] = "centernet"
    """The detector."""
    backbone: Literal[BackboneName, "hourglass52"] = "resnet50"  # type: ignore[assignment]  # one more than other families have
    """The network that features come from; hourglass52 is trained from scratch."""
    fpn_channels: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    """Channels of P2, the map that all is predicted from, and of the branches on it."""

    score_thresh: Probability = 0.001
    """A detection scores more than this, also after soft-NMS has lowered its score."""
    topk_candidates: PositiveInt = 70
    """Keypoints of each kind that are paired at most, over all classes."""

    @model_validator(mode="after")
    def _from_scratch(self) -> "CenterNetConfig":
        pretrained = self.weights is not None or self.norm == "frozen_batch" or self.frozen_stages > 0
        if self.backbone == "hourglass52" and (pretrained or self.deformable):
            raise ValueError(
                "backbone must be a ResNet, or have weights: null, norm: batch, frozen_stages: 0 and deformable: false "
                "beside it: hourglass52 is trained from scratch"
            )
        return self
