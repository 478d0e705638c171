"""AlignSeg's context module: "Feature-Aligned Segmentation Networks", arXiv:2003.00872."""

from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.decoders.alignseg import SLOPE, Displacement, warp
from cyclenet.models.layers import ConvNormReLU
from cyclenet.models.resize import resize


class AlignCM(Context):
    """Features pooled to 3x3 cells are warped onto the features, and added to them.

    Args:
        in_channels: channels of the backbone's features, at 1/32.
        head_channels: channels of the output; the paper has 256.
    """

    def __init__(self, in_channels: int, head_channels: int = 256) -> None:
        super().__init__()
        self.out_channels = head_channels
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(3), *_reduce(in_channels, head_channels))
        self.adapt = nn.Sequential(*_reduce(in_channels, head_channels))
        self.move = Displacement(head_channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled, own = self.pool(x), self.adapt(x)
        spread = resize(pooled, own.shape[-2:], align_corners=True)
        return warp(pooled, self.move([own, spread])) + own


def _reduce(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        ConvNormReLU(in_channels, in_channels, 1, slope=SLOPE),
        ConvNormReLU(in_channels, out_channels, 3, slope=SLOPE),
    ]
