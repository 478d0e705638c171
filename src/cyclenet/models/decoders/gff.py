"""GFF: "Gated Fully Fusion for Semantic Segmentation", arXiv:1904.01803."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ConvNormReLU
from cyclenet.models.resize import resize


class GFF(Decoder):
    """Gates let each level take from all others what it lacks; a dense top-down path follows.

    The paper's formula: all levels are fused at once, X'_l = (1 + G_l) X_l + (1 - G_l) sum of
    G_i X_i over the other levels. The authors' code updates level after level in place, and has no
    ResNet. A gate has a value for each channel, as there; the paper's, one a pixel, is not built.

    Args:
        context_channels: channels of the context features (a pyramid pooling).
        head_channels: channels of all levels and of the output.
    """

    reads = (0, 1, 2, 3)

    def __init__(
        self,
        level_channels: list[int],
        context_channels: int,
        head_channels: int = 256,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = head_channels, align_corners
        width, count = head_channels, len(level_channels)
        self.reduce_convs = nn.ModuleList(ConvNormReLU(c, width, 1) for c in level_channels)
        self.gates = nn.ModuleList(nn.Conv2d(c, width, 1) for c in level_channels)
        self.convs = nn.ModuleList(
            nn.Sequential(ConvNormReLU(width, width, 3), ConvNormReLU(width, width, 3))
            for _ in level_channels
        )
        self.reduce_context: nn.Module = nn.Identity()
        if context_channels != width:
            self.reduce_context = ConvNormReLU(context_channels, width, 1)
        # From the coarsest level down, each reads all maps above it.
        self.dense = nn.ModuleList(ConvNormReLU(n * width, width, 3) for n in range(2, count + 1))
        self.fuse_conv = ConvNormReLU((count + 1) * width, width, 3)

    def forward(self, high: Tensor, *levels: Tensor) -> Tensor:
        features = [conv(x) for conv, x in zip(self.reduce_convs, levels, strict=True)]
        gates = [gate(x).sigmoid() for gate, x in zip(self.gates, levels, strict=True)]
        sent = [gate * x for gate, x in zip(gates, features, strict=True)]
        maps = [self.reduce_context(high)]
        for n in reversed(range(len(levels))):
            size = levels[n].shape[-2:]
            others = [self._to(x, size) for i, x in enumerate(sent) if i != n]
            fused = (1 + gates[n]) * features[n] + (1 - gates[n]) * sum(others)
            maps.append(self.convs[n](fused))
            if n:
                together = [self._to(x, size) for x in maps]
                maps[-1] = self.dense[len(levels) - 1 - n](torch.cat(together, 1))
        return self.fuse_conv(torch.cat([self._to(x, size) for x in maps], 1))

    def _to(self, x: Tensor, size: torch.Size) -> Tensor:
        return resize(x, size, self.align_corners)
