"""PSPNet: "Pyramid Scene Parsing Network", arXiv:1612.01105."""

import torch
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU, require_two_images
from cyclenet.models.resize import resize

BINS = (1, 2, 3, 6)  # Cells of a side of each grid.


class PSPNet(Context):
    """Pool features to a few grids, convolve each, and concatenate them with the features.

    Matches mmsegmentation's ``PSPHead`` and the authors' PyTorch code (semseg); the Caffe original
    pools fixed windows of a crop of 713. A 1x1 grid's batch norm needs two images in training.

    Args:
        head_channels: channels of each grid's features and of the output; the paper has 512.
    """

    def __init__(
        self, in_channels: int, head_channels: int = 512, align_corners: bool = True
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = head_channels, align_corners
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bin), ConvNormReLU(in_channels, head_channels, 1))
            for bin in BINS
        )
        self.fuse_conv = ConvNormReLU(in_channels + len(BINS) * head_channels, head_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        require_two_images(self, x)
        pooled = [resize(pool(x), x.shape[-2:], self.align_corners) for pool in self.pools]
        return self.fuse_conv(torch.cat([x, *pooled], 1))
