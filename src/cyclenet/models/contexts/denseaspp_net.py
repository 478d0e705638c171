"""DenseASPP as its authors publish it: "DenseASPP for Semantic Segmentation in Street Scenes"."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ChannelDropout


class PreActivationLayer(nn.Sequential):
    """Norm and ReLU before a 1x1 and an atrous 3x3: (N, channels, H, W) -> (N, growth, H, W).

    The convolutions have biases, as the authors' have.
    """

    def __init__(
        self, channels: int, inner: int, growth: int, rate: int, dropout: float, norm: bool
    ) -> None:
        super().__init__(
            nn.BatchNorm2d(channels) if norm else nn.Identity(),
            nn.ReLU(inplace=norm),  # Without a norm its input is shared, and rectified already.
            nn.Conv2d(channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, growth, 3, padding=rate, dilation=rate),
            ChannelDropout(dropout),
        )


class DenseASPPNet(Context):
    """Densely connected atrous layers in DenseNet's order: norm and ReLU before a convolution.

    It is what follows the authors' DenseNet (arXiv:1810.10143), whose features are halved first;
    CycleNet's DenseASPP (``model.context=denseaspp``) has the usual order instead.

    Args:
        in_channels: channels of the backbone's features, after their ReLU.
        atrous_rates: dilations of the layers.
        bottleneck_channels: channels between the two convolutions of a layer.
        growth_channels: output channels of a layer.
        dropout: of the output channels of a layer.
    """

    def __init__(
        self,
        in_channels: int,
        atrous_rates: Sequence[int] = (3, 6, 12, 18, 24),
        *,
        bottleneck_channels: int = 512,
        growth_channels: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        channels = in_channels // 2
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
        self.layers = nn.ModuleList(
            PreActivationLayer(
                channels + n * growth_channels,
                bottleneck_channels,
                growth_channels,
                rate,
                dropout,
                norm=n > 0,
            )
            for n, rate in enumerate(atrous_rates)
        )
        self.out_channels = channels + len(atrous_rates) * growth_channels

    def forward(self, x: Tensor) -> Tensor:
        # The authors' first layer rectifies its input in place, which later layers read too.
        features: Tensor = self.reduce_conv(x).relu()
        for layer in self.layers:
            features = torch.cat([layer(features), features], 1)
        return features
