"""Feature pyramids (arXiv:1612.03144): P3–P7 with the two coarse levels of arXiv:1708.02002, and P2–P6."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from detector.backbones.epilogue import conv_bias
from detector.backbones.strided import StridedConv2d


def merge_down(levels: list[Tensor]) -> None:
    """Adds to each level, finest first, in place, the coarser one, enlarged; an odd size halves upwards."""
    for i in range(len(levels) - 1, 0, -1):
        upsampled = F.interpolate(levels[i], size=levels[i - 1].shape[-2:], mode="nearest")
        levels[i - 1] = levels[i - 1] + upsampled


class TopDown(nn.Module):
    """Feature maps to as many pyramid levels, finest first; the convolutions are to be initialised by `initialise`.

    Args:
        in_channels: channels of the maps. out_channels: of every level.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.output_convs = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels)

    def initialise(self) -> None:
        """Xavier's uniform weights without bias, in all convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """As many levels as maps, see `merge_down`."""
        merged = [conv_bias(feature, conv) for conv, feature in zip(self.lateral_convs, features, strict=True)]
        merge_down(merged)
        return [conv_bias(feature, conv) for conv, feature in zip(self.output_convs, merged, strict=True)]


class FPN(TopDown):
    """C3, C4, C5 to P3, ..., P7 (strides 8 to 128), all with the same number of channels.

    Args:
        in_channels: channels of C3, C4, C5.
        out_channels: channels of every output.
        p7_relu: put a ReLU between P6 and P7; the released models have none.
        p6_from: "c5", or "p5".
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 256, p7_relu: bool = False, p6_from: str = "c5"
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.p7_relu = p7_relu
        self.p6_from = p6_from
        p6_channels = in_channels[-1] if p6_from == "c5" else out_channels
        self.p6 = StridedConv2d(p6_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = StridedConv2d(out_channels, out_channels, 3, stride=2, padding=1)
        self.initialise()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[C3, C4, C5] to [P3, P4, P5, P6, P7]."""
        outputs = super().forward(features)
        p6 = self.p6(features[-1] if self.p6_from == "c5" else outputs[-1])
        p7 = self.p7(F.relu(p6) if self.p7_relu else p6)
        return [*outputs, p6, p7]


class PooledFPN(TopDown):
    """C2, C3, C4, C5 to P2, ..., P6 (strides 4 to 64): P6 is every second pixel of P5."""

    def __init__(self, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__(in_channels, out_channels)
        self.initialise()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[C2, C3, C4, C5] to [P2, P3, P4, P5, P6]."""
        outputs = super().forward(features)
        return [*outputs, outputs[-1][:, :, ::2, ::2]]
