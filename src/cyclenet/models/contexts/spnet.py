"""SPNet: "Strip Pooling: Rethinking Spatial Pooling for Scene Parsing", arXiv:2003.13328."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU, conv_norm
from cyclenet.models.resize import resize

GRIDS = (20, 12)  # Cells of a side of the square grids.


class MixedPooling(nn.Module):
    """MPM: pooling to square grids and to strips, side by side (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: channels of input and output; a quarter of them is used inside.
    """

    def __init__(self, channels: int, align_corners: bool) -> None:
        super().__init__()
        inner, self.align_corners = channels // 4, align_corners
        self.square_reduce = ConvNormReLU(channels, inner, 1)
        self.strip_reduce = ConvNormReLU(channels, inner, 1)
        self.full = conv_norm(inner, inner, (3, 3))
        self.pooled = nn.ModuleList(conv_norm(inner, inner, (3, 3)) for _ in GRIDS)
        self.row = conv_norm(inner, inner, (1, 3))
        self.column = conv_norm(inner, inner, (3, 1))
        self.square_out = ConvNormReLU(inner, inner, 3)
        self.strip_out = ConvNormReLU(inner, inner, 3)
        self.project = conv_norm(2 * inner, channels, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        square, strip = self.square_reduce(x), self.strip_reduce(x)
        pooled = [
            resize(conv(F.adaptive_avg_pool2d(square, grid)), size, self.align_corners)
            for grid, conv in zip(GRIDS, self.pooled, strict=True)
        ]
        square = self.square_out(torch.relu(self.full(square) + sum(pooled)))
        row = resize(self.row(strip.mean(2, keepdim=True)), size, self.align_corners)
        column = resize(self.column(strip.mean(3, keepdim=True)), size, self.align_corners)
        strip = self.strip_out(torch.relu(row + column))
        return torch.relu(x + self.project(torch.cat([square, strip], 1)))


class SPNet(Context):
    """The head of SPNet: two mixed pooling modules in series.

    Read from the authors' code; no other implementation is at hand. The authors' configurations
    switch on the strip pooling inside the backbone too (``model.strip_pooling``), and dilate its
    last stage by 4, 8 and 16 (``model.multi_grid``).

    Args:
        head_channels: channels of the output; the paper has 512, and twice that between.
    """

    def __init__(
        self, in_channels: int, head_channels: int = 512, align_corners: bool = True
    ) -> None:
        super().__init__()
        self.out_channels, wide = head_channels, 2 * head_channels
        self.body = nn.Sequential(
            ConvNormReLU(in_channels, wide, 1),
            MixedPooling(wide, align_corners),
            MixedPooling(wide, align_corners),
            ConvNormReLU(wide, head_channels, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
