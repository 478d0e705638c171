"""DeepLabV3+: "Encoder-Decoder with Atrous Separable Convolution", arXiv:1802.02611."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU, SeparableConv, require_two_images


class SeparableASPP(Context):
    """ASPP whose atrous convolutions are separable.

    Matches mmsegmentation's ``DepthwiseSeparableASPPHead`` up to its decoder, with a 3x3
    convolution of the concatenation; the paper's is 1x1.

    Args:
        head_channels: channels of each branch and of the output; mmsegmentation has 512, the
            paper 256.
        rates_at_8: dilations of the atrous convolutions, for features at 1/8.
        output_stride: stride of the features, by which the dilations are scaled.
    """

    def __init__(
        self,
        in_channels: int,
        head_channels: int = 512,
        *,
        rates_at_8: Sequence[int] = (12, 24, 36),
        output_stride: int = 8,
    ) -> None:
        super().__init__()
        rates = [rate * 8 // output_stride for rate in rates_at_8]
        self.out_channels = head_channels
        self.pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvNormReLU(in_channels, head_channels, 1)
        )
        self.convs = nn.ModuleList(
            [ConvNormReLU(in_channels, head_channels, 1)]
            + [SeparableConv(in_channels, head_channels, rate) for rate in rates]
        )
        self.fuse_conv = ConvNormReLU((len(rates) + 2) * head_channels, head_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        require_two_images(self, x)
        pooled = self.pool(x).expand(-1, -1, *x.shape[-2:])
        return self.fuse_conv(torch.cat([pooled, *(conv(x) for conv in self.convs)], 1))
