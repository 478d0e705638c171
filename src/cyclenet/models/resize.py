"""How features lie over pixels, and bilinear interpolation of maps and of some of their rows."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Grid(NamedTuple):
    """The one rule of how a network's features lie over the pixels of an image.

    The network pads an image below and on the right to the next size of its grid. Its features and
    logits cover the padded image. What is resized from them is resized to the padded size and cut
    to the image. Training crops, windows and whole images then have one geometry, whatever their
    size (docs/evaluation.md).

    Attributes:
        stride: pixels of the image per pixel of the coarsest features.
        align_corners: corner alignment. A feature i then lies at pixel ``stride * i``, and the
            sizes of the grid are ``stride * k + 1``; without it they are ``stride * k``.
    """

    stride: int
    align_corners: bool

    def padded(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the next (height, width) of the grid."""
        height, width = (self.padded_side(side) for side in size)
        return height, width

    def padded_side(self, side: int) -> int:
        """Return the next side of the grid, in pixels."""
        extra = int(self.align_corners)
        return (side - extra + self.stride - 1) // self.stride * self.stride + extra

    def cells(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the (height, width) of the coarsest features of an image or crop."""
        extra = int(self.align_corners)
        height, width = ((side - extra) // self.stride + extra for side in self.padded(size))
        return height, width

    def window(self, length: int, padded: int, start: int, crop: int) -> slice:
        """Return the rows (or columns) of a feature map that lie over a crop.

        Args:
            length: rows of the map, which covers the padded image.
            padded: rows of the padded image.
            start: where the crop begins, in cells of ``stride`` pixels.
            crop: rows of the crop, a size of the grid.
        """
        extra = int(self.align_corners)
        step = (padded - extra) // (length - extra)  # Pixels of the image per row of the map.
        first = start * self.stride // step
        return slice(first, first + (crop - extra) // step + extra)

    def pad(self, x: Tensor, least: Sequence[int] = (0, 0)) -> Tensor:
        """Pad (N, C, H, W) with zeros, the mean colour, to the next size of the grid.

        ``least``, a size of the grid, is the smallest (height, width) that results.
        """
        height, width = map(max, self.padded(x.shape[-2:]), least)
        if (height, width) == tuple(x.shape[-2:]):
            return x
        return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def resize(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Interpolate (N, C, H, W) bilinearly to ``size`` (height, width) pixels."""
    # What torch.export records must not differ between sizes of an image.
    if not torch.compiler.is_exporting() and tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


def resize_rows(x: Tensor, size: Sequence[int], rows: slice, grid: Grid) -> Tensor:
    """Return the rows of an image of ``size`` that features or logits (N, C, h, w) give.

    The other rows are not computed: what is done to an upsampled image strip by strip then needs
    the memory of a strip. Autocast is off here, whatever the caller's.
    """
    height, width = grid.padded(size)
    if tuple(x.shape[-2:]) == (height, width):
        return x[..., rows, : size[1]]
    needed, weights = row_weights(x.shape[-2], height, rows, grid.align_corners, x)
    return combine_rows(x[..., needed, :], weights, width, grid.align_corners)[..., : size[1]]


def combine_rows(x: Tensor, weights: Tensor, width: int, align_corners: bool) -> Tensor:
    """Apply the matrix of `row_weights` to the needed rows, and resize columns to ``width``."""
    # Columns come first, as in PyTorch's kernel: labels are then the same but for ties.
    wide = F.interpolate(
        x.contiguous(), (x.shape[-2], width), mode="bilinear", align_corners=align_corners
    )
    with torch.autocast(x.device.type, enabled=False):
        if x.is_cuda:  # Its matrix units may be set to round float32 to 10 bits (TF32).
            return (weights.double() @ wide.double()).to(wide.dtype)
        return weights @ wide


def row_weights(
    length: int, size: int, rows: slice, align_corners: bool, like: Tensor
) -> tuple[slice, Tensor]:
    """Return the interpolation from ``length`` to ``size`` rows, for some ``rows``, as a matrix.

    Returns:
        The source rows that are needed, and a matrix (rows, needed rows) of their weights, in the
        device and dtype of ``like``.
    """
    return _row_weights(length, size, rows.start, rows.stop, align_corners, like.dtype, like.device)


# Matrices are kept, because the host waits for a GPU with each matrix that it sends there.
@lru_cache(maxsize=256)
@torch.inference_mode(False)  # Training and inference share them.
def _row_weights(
    length: int,
    size: int,
    start: int,
    stop: int,
    align_corners: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[slice, Tensor]:
    # PyTorch computes positions in float32 for all types but double.
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    index = torch.arange(start, stop, dtype=exact)
    if align_corners:
        position = index * ((length - 1) / (size - 1) if size > 1 else 0.0)
    else:
        position = ((index + 0.5) * (length / size) - 0.5).clamp(min=0)
    first = position.long().clamp(max=length - 1)
    second, fraction = (first + 1).clamp(max=length - 1), position - first
    needed = slice(int(first[0]), int(second[-1]) + 1)
    weights = position.new_zeros(len(index), needed.stop - needed.start)
    row = torch.arange(len(index))
    weights[row, first - needed.start] += 1 - fraction
    weights[row, second - needed.start] += fraction
    return needed, weights.to(device, dtype)


def strips(height: int, rows: int) -> list[slice]:
    """Cut ``height`` rows into slices of ``rows`` rows; the last may have fewer."""
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]
