"""The finest map of a feature pyramid: P2, and none of the coarser ones (arXiv:1612.03144)."""

from collections.abc import Sequence

from torch import Tensor, nn

from detector.backbones.fpn import merge_down


class FinestMap(nn.Module):
    """C2, C3, C4, C5 to P2, of stride 4.

    Args:
        in_channels: channels of C2 to C5. out_channels: of P2.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        for conv in self.lateral_convs:
            nn.init.xavier_uniform_(conv.get_parameter("weight"))
            nn.init.zeros_(conv.get_parameter("bias"))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[C2, C3, C4, C5] to [P2]; an odd size halves upwards. Its 3×3 convolution is the head's first."""
        levels = [conv(feature) for conv, feature in zip(self.lateral_convs, features, strict=True)]
        merge_down(levels)
        return levels[:1]
