"""EncNet: "Context Encoding for Semantic Segmentation", arXiv:1803.08904."""

from types import MappingProxyType

import torch
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU, exact, without_autocast


class Encoding(nn.Module):
    """Soft assignment of pixels to codewords: (N, C, H, W) -> (N, K, C), sums of residuals.

    Args:
        channels: C.
        codes: K, codewords.
    """

    def __init__(self, channels: int, codes: int) -> None:
        super().__init__()
        self.codewords = nn.Parameter(torch.empty(codes, channels))
        self.scale = nn.Parameter(torch.empty(codes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw codewords and scales as the authors' code does."""
        bound = self.codewords.numel() ** -0.5
        nn.init.uniform_(self.codewords, -bound, bound)
        nn.init.uniform_(self.scale, -1, 0)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        # The squares are expanded, for the residuals of all pixels and codes would take 617 MB an
        # image at 769. Their difference cancels, so 16 bits would not do.
        with without_autocast(x):
            pixels = exact(pixels)
            squares = pixels.square().sum(-1, keepdim=True) + self.codewords.square().sum(-1)
            distances = squares - 2 * pixels @ self.codewords.T
            weights = (self.scale * distances).softmax(-1)
            encoded = weights.transpose(1, 2) @ pixels
            return encoded - weights.sum(1)[..., None] * self.codewords


class EncNet(Context):
    """Scale channels by factors that follow from an encoding of the whole image.

    Matches mmsegmentation's ``EncHead`` without its lateral convolutions, as the authors have it on
    ADE20K. In training a linear layer on the encoding says which classes occur in the crop; its
    loss has the weight 0.2.

    Args:
        num_classes: classes that may occur.
        head_channels: channels of the output; the paper has 512.
        codes: codewords.
    """

    extra_weights = MappingProxyType({"classes": 0.2})

    def __init__(
        self, in_channels: int, num_classes: int, head_channels: int = 512, *, codes: int = 32
    ) -> None:
        super().__init__()
        self.out_channels = width = head_channels
        self.reduce_conv = ConvNormReLU(in_channels, width, 3)
        self.encode = nn.Sequential(
            ConvNormReLU(width, width, 1), Encoding(width, codes), nn.BatchNorm1d(codes), nn.ReLU()
        )
        self.factor = nn.Linear(width, width)
        self.occurrence = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce_conv(x)
        return self._scale(y, self.encode(y).mean(1))

    def with_extras(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.reduce_conv(x)
        encoding = self.encode(y).mean(1)
        return self._scale(y, encoding), {"classes": self.occurrence(encoding)}

    def _scale(self, y: Tensor, encoding: Tensor) -> Tensor:
        factor = self.factor(encoding).sigmoid()[..., None, None]
        return torch.relu(y + y * factor)
