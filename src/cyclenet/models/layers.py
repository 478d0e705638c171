"""The block every part of the network is made of."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class SumConv2d(nn.Conv2d):
    """The convolution of a concatenation, as the sum of a convolution of each part: no copy is made, and none kept.

    The filter is one parameter, as `nn.Conv2d` has it. Takes [(N, c_1, H, W), (N, c_2, H, W), ...] whose channels add up to
    ``in_channels``.
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
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, conv: type[nn.Conv2d] = nn.Conv2d
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            conv(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def normalise(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (image - mean) / std of (N, C, H, W), in the dtype of ``mean`` (C, 1, 1) and in channels-last layout."""
    count, channels, height, width = image.shape
    # Whole rows of pixels: with the channels of one pixel side by side, a CPU would take them three at a time.
    rows = image.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    rows = (rows - mean.flatten().repeat(width)).div_(std.flatten().repeat(width)).to(mean.dtype)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Interpolate (N, C, H, W) bilinearly to ``size`` (height, width) pixels."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


def resize_rows(x: Tensor, size: Sequence[int], rows: slice, align_corners: bool) -> Tensor:
    """Return ``resize(x, size, align_corners)[..., rows, :]`` without computing the other rows.

    What is done to an upsampled image strip by strip needs the memory of a strip. Not under autocast, whatever the caller's.
    """
    height, width = x.shape[-2:]
    if (height, width) == tuple(size):
        return x[..., rows, :]
    needed, weights = row_weights(height, size[0], rows, align_corners, x)
    return combine_rows(x[..., needed, :], weights, size[1], align_corners)


def combine_rows(x: Tensor, weights: Tensor, width: int, align_corners: bool) -> Tensor:
    """Resize the ``needed`` rows of `row_weights` to the rows and ``width`` that were asked for."""
    # Columns first, as PyTorch's kernel: the labels that follow are the same but for ties.
    wide = F.interpolate(x.contiguous(), (x.shape[-2], width), mode="bilinear", align_corners=align_corners)
    with torch.autocast(x.device.type, enabled=False):
        if x.is_cuda:  # Whose matrix units may be set to round float32 to 10 bits (TF32).
            return (weights.double() @ wide.double()).to(wide.dtype)
        return weights @ wide


def row_weights(length: int, size: int, rows: slice, align_corners: bool, like: Tensor) -> tuple[slice, Tensor]:
    """Describe how ``rows`` of an image that is resized from ``length`` to ``size`` rows follow from the rows before.

    Returns:
        The rows that are needed, and a matrix (rows, needed rows) of bilinear weights, of the device and dtype of ``like``.
    """
    # As PyTorch, whose positions are float32 for all types but double.
    index = torch.arange(rows.start, rows.stop, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)
    if align_corners:
        position = index * ((length - 1) / (size - 1) if size > 1 else 0.0)
    else:
        position = ((index + 0.5) * (length / size) - 0.5).clamp(min=0)
    first = position.long().clamp(max=length - 1)
    second, part = (first + 1).clamp(max=length - 1), position - first
    needed = slice(int(first[0]), int(second[-1]) + 1)
    weights = position.new_zeros(len(index), needed.stop - needed.start)
    row = torch.arange(len(index))
    weights[row, first - needed.start] += 1 - part
    weights[row, second - needed.start] += part
    return needed, weights.to(like)


def strips(height: int, rows: int) -> list[slice]:
    """Cut ``height`` rows into slices of ``rows`` rows; the last may have fewer."""
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


class ChannelDropout(nn.Module):
    """`nn.Dropout2d`, whose every process draws the mask of the joined batch and takes its own part.

    With the same random state on all processes (`cyclenet.training.callbacks.SeedPerStep`) and equal shares of the batch, the channels
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
