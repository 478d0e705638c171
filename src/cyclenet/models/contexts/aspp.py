"""ASPP: "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587."""

import torch
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU


class ASPP(Context):
    """Atrous spatial pyramid pooling with image-level features (section 3.3).

    (N, in_channels, H, W) -> (N, head_channels, H, W).
    """

    def __init__(self, in_channels: int, atrous_rates: list[int], head_channels: int) -> None:
        super().__init__()
        self.out_channels = head_channels
        self.convs = nn.ModuleList(
            [ConvNormReLU(in_channels, head_channels, 1)]
            + [ConvNormReLU(in_channels, head_channels, 3, dilation=rate) for rate in atrous_rates]
        )
        # There is no batch norm here: one image leaves one value a channel, without a variance.
        self.pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, head_channels, 1), nn.ReLU()
        )
        self.project = ConvNormReLU((len(atrous_rates) + 2) * head_channels, head_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([*(conv(x) for conv in self.convs), pooled], 1))
