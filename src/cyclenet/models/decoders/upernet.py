"""UPerNet: "Unified Perceptual Parsing for Scene Understanding", arXiv:1807.10221."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ConvNormReLU
from cyclenet.models.resize import resize


class UPerNet(Decoder):
    """A feature pyramid below the context features, whose levels are fused at 1/4.

    With ``model.context=pspnet`` and output stride 32 it matches mmsegmentation's ``UPerHead``.

    Args:
        context_channels: channels of the context features, and of all levels of the pyramid.
    """

    reads = (0, 1, 2)

    def __init__(
        self, level_channels: list[int], context_channels: int, align_corners: bool = False
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = context_channels, align_corners
        width = context_channels
        lower = level_channels[:3]
        self.laterals = nn.ModuleList(ConvNormReLU(channels, width, 1) for channels in lower)
        self.convs = nn.ModuleList(ConvNormReLU(width, width, 3) for _ in lower)
        self.fuse_conv = ConvNormReLU((len(lower) + 1) * width, width, 3)

    def forward(self, high: Tensor, *levels: Tensor) -> Tensor:
        sums: list[Tensor] = []
        above = high
        for lateral, level in zip(reversed(self.laterals), reversed(levels), strict=True):
            above = lateral(level) + resize(above, level.shape[-2:], self.align_corners)
            sums.insert(0, above)
        pyramid = [conv(each) for conv, each in zip(self.convs, sums, strict=True)] + [high]
        size = levels[0].shape[-2:]
        maps = [resize(each, size, self.align_corners) for each in pyramid]
        return self.fuse_conv(torch.cat(maps, 1))
