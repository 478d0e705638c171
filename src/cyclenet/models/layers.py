"""The blocks that every part of the network is made of."""

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class SumConv2d(nn.Conv2d):
    """The convolution of a concatenation, as the sum of a convolution of each part.

    No copy of the concatenation is made or kept. The filter is one parameter, as in `nn.Conv2d`.
    Takes [(N, c_1, H, W), (N, c_2, H, W), ...] whose channels add up to ``in_channels``.
    """

    def forward(self, parts: list[Tensor]) -> Tensor:  # type: ignore[override]
        """Convolve the parts, in the order that they would be concatenated in."""
        filters = self.weight.split([part.shape[1] for part in parts], 1)
        first, *others = (
            F.conv2d(part, weight, None, self.stride, self.padding, self.dilation)
            for part, weight in zip(parts, filters, strict=True)
        )
        return sum(others, first)


class ConvNormReLU(nn.Sequential):
    """Convolution that keeps the size, batch norm, ReLU: (N, in, H, W) -> (N, out, H, W).

    With ``conv=SumConv2d`` the input is a list of tensors.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        conv: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            conv(
                in_channels,
                out_channels,
                kernel_size,
                padding=padding,
                dilation=dilation,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def normalise(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (image - mean) / std of (N, C, H, W), in channels-last layout.

    The dtype is that of ``mean`` and ``std`` (C, 1, 1).
    """
    count, channels, height, width = image.shape
    # Whole rows of pixels are normalised at once: with the channels of one pixel side by side, a
    # CPU would take them three at a time.
    rows = image.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    rows = (rows - mean.flatten().repeat(width)).div_(std.flatten().repeat(width)).to(mean.dtype)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


class ChannelDropout(nn.Module):
    """`nn.Dropout2d` whose processes draw the mask of the joined batch and take their own part.

    With the same random state on all processes (`cyclenet.training.callbacks.SeedPerBatch`) and
    equal shares of the batch, the channels that a sample loses do not depend on the number of
    processes. In one process it is `nn.Dropout2d`, bit by bit.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole channels of (N, C, H, W), in training only."""
        if not self.training or not self.p:
            return x
        rank, world_size = 0, 1
        if dist.is_available() and dist.is_initialized():
            rank, world_size = dist.get_rank(), dist.get_world_size()
        count, channels = x.shape[:2]
        kept = x.new_empty(world_size * count, channels, 1, 1)
        kept = kept.bernoulli_(1 - self.p).div_(1 - self.p)
        return x * kept[rank * count : (rank + 1) * count]
