"""ReSeg: "A Recurrent Neural Network-based Model for Semantic Segmentation", arXiv:1511.07053."""

from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU


class ReNet(nn.Module):
    """GRUs sweep the columns both ways, then the rows: (N, C, H, W) -> (N, 2 * hidden, H, W)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.vertical = nn.GRU(channels, hidden, batch_first=True, bidirectional=True)
        self.horizontal = nn.GRU(2 * hidden, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        columns, _ = self.vertical(x.permute(0, 3, 2, 1).flatten(0, 1))
        rows = columns.unflatten(0, (-1, width)).transpose(1, 2).flatten(0, 1)
        swept, _ = self.horizontal(rows)
        return swept.unflatten(0, (-1, height)).permute(0, 3, 1, 2)


class ReSeg(Context):
    """Recurrent layers over the backbone's reduced features.

    The authors have it on VGG-16, in Theano, and one bias a gate where `nn.GRU` has two; on a
    ResNet the features are reduced first, as CycleNet's Table 4 does not say.

    Args:
        head_channels: channels after the reduction.
        hidden: units of each GRU; the output has twice as many channels.
        layers: recurrent layers.
    """

    def __init__(
        self, in_channels: int, head_channels: int = 512, *, hidden: int = 100, layers: int = 2
    ) -> None:
        super().__init__()
        self.out_channels = 2 * hidden
        self.reduce_conv = ConvNormReLU(in_channels, head_channels, 1)
        self.sweeps = nn.Sequential(
            *(ReNet(2 * hidden if n else head_channels, hidden) for n in range(layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.sweeps(self.reduce_conv(x))
