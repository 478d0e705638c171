"""FaPN: "Feature-aligned Pyramid Network for Dense Image Prediction", arXiv:2108.07058."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.adc import TAPS
from cyclenet.models.decoders.base import Decoder
from cyclenet.models.deform import deform_conv2d
from cyclenet.models.layers import ConvNormReLU, ZeroConv2d, conv_norm, exact
from cyclenet.models.resize import resize

GROUPS = 8  # Groups of channels with offsets of their own.


class FeatureAlign(nn.Module):
    """Sample coarser features where they differ from a level's own, and add them to it.

    Takes (N, C, h, w) and a level (N, level_channels, H, W), and returns (N, C, H, W).
    """

    def __init__(self, level_channels: int, channels: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.lateral = conv_norm(level_channels, channels, (1, 1))
        self.difference = conv_norm(2 * channels, channels, (1, 1))
        self.offset_conv = ZeroConv2d(channels, GROUPS * TAPS * 3, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the aligning filter; `cyclenet.models.layers.initialise` calls it."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bias)

    def forward(self, above: Tensor, level: Tensor) -> Tensor:
        own = self.lateral(level)
        above = resize(above, own.shape[-2:], self.align_corners)
        predicted = exact(self.offset_conv(self.difference(torch.cat([own, 2 * above], 1))))
        offset, mask = predicted.split([2 * GROUPS * TAPS, GROUPS * TAPS], 1)
        aligned = deform_conv2d(above, offset, mask.sigmoid(), self.weight, GROUPS)
        return torch.relu(aligned + self.bias[:, None, None]) + own


class FaPN(Decoder):
    """A feature pyramid that aligns each coarser level with the next finer one.

    It is read from the authors' code for semantic segmentation (their decoder of MaskFormer), which
    has no feature selection. There the 1x1 convolution before the offsets and the 3x3 one after
    the sum share one batch norm, by accident as it seems; here each has its own.

    Args:
        context_channels: channels of the context features, and of all levels of the pyramid.
    """

    reads = (0, 1, 2)

    def __init__(
        self, level_channels: list[int], context_channels: int, align_corners: bool = False
    ) -> None:
        super().__init__()
        self.out_channels, width = context_channels, context_channels
        if width % GROUPS:
            raise ValueError(
                f"model.decoder=fapn has {GROUPS} groups of channels: model.head_channels must be "
                f"a multiple of it; got {width}."
            )
        lower = level_channels[:3]
        self.aligns_levels = nn.ModuleList(
            FeatureAlign(channels, width, align_corners) for channels in lower
        )
        self.convs = nn.ModuleList(ConvNormReLU(width, width, 3) for _ in lower)

    def forward(self, high: Tensor, *levels: Tensor) -> Tensor:
        for n in reversed(range(len(levels))):
            high = self.convs[n](self.aligns_levels[n](high, levels[n]))
        return high
