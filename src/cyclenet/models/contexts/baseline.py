"""The context module of Table 2's baseline: one convolution."""

from torch import Tensor

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU


class Baseline(Context):
    """A 3x3 convolution: (N, in_channels, H, W) -> (N, head_channels, H, W)."""

    def __init__(self, in_channels: int, head_channels: int) -> None:
        super().__init__()
        self.out_channels = head_channels
        self.conv = ConvNormReLU(in_channels, head_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
