"""AlignSeg: "Feature-Aligned Segmentation Networks", arXiv:2003.00872."""

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import Classifier, ConvNormReLU, SumConv2d, ZeroConv2d, exact
from cyclenet.models.resize import resize

SLOPE = 0.01  # Of the leaky ReLUs, the default of the fused batch norm that the authors build with.


def warp(x: Tensor, delta: Tensor) -> Tensor:
    """Sample features (N, C, h, w) at displaced pixels: (N, C, H, W) for a delta (N, 2, H, W).

    The displacement, (dx, dy), is in pixels of the output; at 0 this interpolates from corner to
    corner. The authors' code has such a function too, but calls another, which divides by (w, h)
    instead of by half of (w - 1, h - 1) and has no fixed point.
    """
    height, width = delta.shape[-2:]
    delta = exact(delta)
    # The image's corners are at -1 and 1. (torch.linspace cannot be exported for all sizes, and
    # Python's max would be recorded as the side that it found longer.)
    rows = torch.arange(height, dtype=delta.dtype, device=x.device)
    columns = torch.arange(width, dtype=delta.dtype, device=x.device)
    down, right = (2 / places[-1].clamp(min=1) for places in (rows, columns))
    rows, columns = rows[:, None] + delta[:, 1], columns + delta[:, 0]
    grid = torch.stack([columns * right - 1, rows * down - 1], -1)
    return F.grid_sample(x.to(delta.dtype), grid, align_corners=True).to(x.dtype)


class Displacement(nn.Sequential):
    """Predict displacements (N, 2, H, W) from two maps (N, C, H, W); they start at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            ConvNormReLU(2 * channels, channels, 1, conv=SumConv2d, slope=SLOPE),
            ZeroConv2d(channels, 2, 3, padding=1, bias=False),
        )


class ResidualBlock(nn.Module):
    """RRB: a 1x1 convolution, and a residual of two 3x3 ones: (N, C, H, W) -> (N, out, H, W)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.unify = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.residual = nn.Sequential(
            ConvNormReLU(out_channels, out_channels // 4, 3, slope=SLOPE),
            nn.Conv2d(out_channels // 4, out_channels, 3, padding=1, bias=False),
        )
        self.norm = nn.Sequential(nn.BatchNorm2d(out_channels), nn.LeakyReLU(SLOPE, inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        x = self.unify(x)
        return self.norm(x + self.residual(x))


class AlignFA(nn.Module):
    """Warp coarser features and finer ones onto each other, and add them."""

    def __init__(self, channels: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.move_high, self.move_low = Displacement(channels), Displacement(channels)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], self.align_corners)
        both = [low, high]
        return warp(high, self.move_high(both)) + warp(low, self.move_low(both))


class AlignSeg(Decoder):
    """Levels join from the finest to the coarsest, then the context's; every step is at 1/4.

    It follows the authors' code but for its warp (`warp`), and without the biases before two batch
    norms, which those undo. In training, the third step has a classifier of its own.

    Args:
        level_channels: channels of the backbone's levels, from 1/4 on; the last at 1/32.
        context_channels: channels of the context features (``model.context=aligncm``).
        num_classes: channels of the classifier that only training uses.
        dropout: of channels before that classifier.
    """

    reads = (0, 1, 2, 3)
    extra_weights = MappingProxyType({"deep": 0.1})

    def __init__(
        self,
        level_channels: list[int],
        context_channels: int,
        num_classes: int,
        align_corners: bool = True,
        *,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.out_channels = width = context_channels
        self.before = nn.ModuleList(
            ResidualBlock(channels, width) for channels in [*level_channels, context_channels]
        )
        self.fuse = nn.ModuleList(AlignFA(width, align_corners) for _ in level_channels)
        self.after = nn.ModuleList(ResidualBlock(width, width) for _ in level_channels)
        self.head = ConvNormReLU(width, width, 3, slope=SLOPE)
        self.deep = nn.Sequential(
            ConvNormReLU(width, width, 3, slope=SLOPE), *Classifier(width, num_classes, dropout)
        )

    def steps(self, high: Tensor, levels: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the features after each level has joined, all at 1/4."""
        finest, *coarser = (block(x) for block, x in zip(self.before, (*levels, high), strict=True))
        found = [finest]
        for fuse, block, level in zip(self.fuse, self.after, coarser, strict=True):
            found.append(block(fuse(level, found[-1])))
        return found

    def forward(self, high: Tensor, *levels: Tensor) -> Tensor:
        return self.head(self.steps(high, levels)[-1])

    def with_extras(self, high: Tensor, *levels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.steps(high, levels)
        return self.head(found[-1]), {"deep": self.deep(found[2])}
