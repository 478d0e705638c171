"""The block every part of the network is made of."""

from collections.abc import Sequence

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormReLU(nn.Sequential):
    """Convolution that keeps the size, batch norm, ReLU: (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Interpolate (N, C, H, W) bilinearly to ``size`` (height, width) pixels."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


class ChannelDropout(nn.Module):
    """`nn.Dropout2d`, whose every process draws the mask of the joined batch and takes its own part.

    With the same random state on all processes (`cyclenet.callbacks.SeedPerStep`) and equal shares of the batch, the channels
    that a sample loses do not depend on the number of processes. In one process it is `nn.Dropout2d`, bit by bit.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole channels of (N, C, H, W), in training only."""
        if not self.training or not self.p:
            return x
        parallel = dist.is_available() and dist.is_initialized()
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
        count, channels = x.shape[:2]
        kept = x.new_empty(world_size * count, channels, 1, 1).bernoulli_(1 - self.p).div_(1 - self.p)
        return x * kept[rank * count : (rank + 1) * count]
