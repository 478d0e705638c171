"""DeepLabV3+'s decoder: "Encoder-Decoder with Atrous Separable Convolution", arXiv:1802.02611."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ConvNormReLU, SeparableConv
from cyclenet.models.resize import resize


class DeepLabV3Plus(Decoder):
    """Few channels of the 1/4 features join the context features; two separable convolutions.

    Matches mmsegmentation's ``DepthwiseSeparableASPPHead`` after its ASPP.

    Args:
        low_channels: channels that the 1/4 features are reduced to.
    """

    def __init__(
        self,
        level_channels: list[int],
        context_channels: int,
        head_channels: int = 512,
        align_corners: bool = False,
        *,
        low_channels: int = 48,
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = head_channels, align_corners
        self.reduce_low = ConvNormReLU(level_channels[0], low_channels, 1)
        self.fuse = nn.Sequential(
            SeparableConv(context_channels + low_channels, head_channels),
            SeparableConv(head_channels, head_channels),
        )

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], self.align_corners)
        return self.fuse(torch.cat([high, self.reduce_low(low)], 1))
