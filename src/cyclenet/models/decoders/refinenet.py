"""RefineNet: "Multi-Path Refinement Networks", arXiv:1611.06612."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ElementDropout, SmallConv2d
from cyclenet.models.resize import resize


def conv(channels: int, out_channels: int, bias: bool = False) -> nn.Conv2d:
    """Return a 3x3 convolution that starts small: there is no batch norm in this network."""
    return SmallConv2d(channels, out_channels, 3, padding=1, bias=bias)


class ResidualConvUnit(nn.Module):
    """RCU: two convolutions after ReLUs, added to the input (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels, bias=True), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class ChainedPooling(nn.Module):
    """CRP: a chain of poolings and convolutions, each added to the input (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convs = nn.ModuleList(conv(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        link = x
        for each in self.convs:
            link = each(self.pool(link))
            x = x + link
        return x


class RefineNet(Decoder):
    """From the coarsest level to the finest: residual units, fusion, chained pooling.

    Pooling comes before the convolution, as in the paper and the PyTorch port; the models that the
    authors released have it after. No batch norm; convolutions start from N(0, 0.01).

    Args:
        context_channels: channels of the last level (``model.context=identity``).
        head_channels: channels of a level and of the output; the coarsest has twice as many.
        dropout: of values of the two coarsest levels and before the classifier.
    """

    reads = (0, 1, 2)

    def __init__(
        self,
        level_channels: list[int],
        context_channels: int,
        align_corners: bool = False,
        head_channels: int = 256,
        *,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = head_channels, align_corners
        self.dropout = ElementDropout(dropout)
        inputs = [*level_channels[:3], context_channels]
        widths = [head_channels, head_channels, head_channels, 2 * head_channels]
        self.adapt = nn.ModuleList(
            nn.Sequential(conv(channels, width), ResidualConvUnit(width), ResidualConvUnit(width))
            for channels, width in zip(inputs, widths, strict=True)
        )
        # What is fused is convolved first; the coarsest level has nothing to fuse with.
        self.join = nn.ModuleList(conv(width, width) for width in widths[:3])
        self.refine = nn.ModuleList(
            nn.Sequential(ChainedPooling(width), *(ResidualConvUnit(width) for _ in range(3)))
            for width in widths
        )
        self.reduce = nn.ModuleList(conv(width, head_channels) for width in widths[1:])

    def forward(self, high: Tensor, *levels: Tensor) -> Tensor:
        inputs = [*levels[:2], self.dropout(levels[2]), self.dropout(high)]
        above: Tensor | None = None
        for n in reversed(range(len(inputs))):
            x = self.adapt[n](inputs[n])
            if above is not None:
                x = self.join[n](x) + resize(above, x.shape[-2:], self.align_corners)
            above = self.refine[n](torch.relu(x))
            if n:
                above = self.reduce[n - 1](above)
        assert above is not None
        return above

    def classifier(self, num_classes: int, dropout: float) -> nn.Module:
        """Return dropout of values and a 3x3 convolution to logits."""
        return nn.Sequential(self.dropout, conv(self.out_channels, num_classes, bias=True))
