"""Interpolate and concatenate: the decoder without alignment that ADC is compared with."""

from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ConvNormReLU, SumConv2d
from cyclenet.models.resize import resize


class FuseWithLow(nn.Sequential):
    """Two 3x3 convolutions of [low, high]: (N, low, H, W), (N, head, H, W) -> (N, head, H, W)."""

    def __init__(self, low_channels: int, head_channels: int) -> None:
        super().__init__(
            ConvNormReLU(low_channels + head_channels, head_channels, 3, conv=SumConv2d),
            ConvNormReLU(head_channels, head_channels, 3),
        )


class SkipDecoder(Decoder):
    """Interpolate context features to the low-level ones and convolve their concatenation.

    Args:
        low_channels: channels of the low-level features.
        head_channels: channels of the context features and of the output.
        align_corners: corner alignment of the interpolation.
        wide: a 3x3 convolution follows the interpolation, which is ADC's without its offsets.
    """

    def __init__(
        self,
        low_channels: int,
        head_channels: int,
        align_corners: bool = False,
        *,
        wide: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = head_channels, align_corners
        self.filter = ConvNormReLU(head_channels, head_channels, 3) if wide else None
        self.fuse = FuseWithLow(low_channels, head_channels)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], self.align_corners)
        high = high if self.filter is None else self.filter(high)
        return self.fuse([low, high])
