"""CCNet: "CCNet: Criss-Cross Attention for Semantic Segmentation", arXiv:1811.11721."""

import torch
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU


class CrissCrossAttention(nn.Module):
    """Each pixel attends to its row and column: (N, C, H, W) -> (N, C, H, W).

    The output is added to the input by a factor that starts at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)
        height, width = x.shape[-2:]
        column = torch.einsum("nchw,ncgw->nhwg", query, key)  # Energies with pixels (g, w).
        # The pixel itself is counted once, in its row.
        place = torch.arange(height, device=x.device)
        itself = (place[:, None] == place)[:, None]
        column = column.masked_fill(itself, float("-inf"))
        row = torch.einsum("nchw,nchv->nhwv", query, key)
        weights = torch.cat([column, row], -1).softmax(-1)
        column, row = weights.split([height, width], -1)
        attended = torch.einsum("nhwg,ncgw->nchw", column, value)
        attended = attended + torch.einsum("nhwv,nchv->nchw", row, value)
        return self.gamma * attended + x


class CCNet(Context):
    """One criss-cross attention, applied twice between two convolutions: it reaches every pixel.

    Matches mmsegmentation's ``CCHead`` where ``slope`` is 0. The authors' code has leaky ReLUs of
    0.01, the default of the fused batch norm that it is built with; so has this.

    Args:
        head_channels: channels of the attention and of the output; the paper has 512.
        slope: of the leaky ReLUs.
    """

    def __init__(self, in_channels: int, head_channels: int = 512, *, slope: float = 0.01) -> None:
        super().__init__()
        self.out_channels = head_channels
        self.reduce_conv = ConvNormReLU(in_channels, head_channels, 3, slope=slope)
        self.attention = CrissCrossAttention(head_channels)
        self.after_conv = ConvNormReLU(head_channels, head_channels, 3, slope=slope)
        self.fuse_conv = ConvNormReLU(in_channels + head_channels, head_channels, 3, slope=slope)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.attention(self.reduce_conv(x)))
        return self.fuse_conv(torch.cat([x, self.after_conv(y)], 1))
