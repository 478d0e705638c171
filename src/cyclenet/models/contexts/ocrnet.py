"""OCRNet: "Object-Contextual Representations for Semantic Segmentation", arXiv:1909.11065."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclenet.models.contexts.base import Context
from cyclenet.models.layers import ConvNormReLU
from cyclenet.models.resize import resize


class ObjectAttention(nn.Module):
    """Pixels (N, C, H, W) attend to the regions (N, C, classes, 1) of the classes."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.query = nn.Sequential(ConvNormReLU(channels, inner, 1), ConvNormReLU(inner, inner, 1))
        self.key = nn.Sequential(ConvNormReLU(channels, inner, 1), ConvNormReLU(inner, inner, 1))
        self.value = ConvNormReLU(channels, inner, 1)
        self.out = ConvNormReLU(inner, channels, 1)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        query = self.query(pixels).flatten(2).transpose(1, 2)
        key = self.key(regions).flatten(2)
        value = self.value(regions).flatten(2).transpose(1, 2)
        weights = (query @ key / math.sqrt(key.shape[1])).softmax(-1)
        attended = (weights @ value).transpose(1, 2)
        return self.out(attended.unflatten(2, pixels.shape[-2:]))


class OCRNet(Context):
    """Each pixel attends to the mean features of every class, as a first guess has them.

    The guess is the auxiliary head's, which evaluation therefore needs too. Matches
    mmsegmentation's ``OCRHead``; the authors' code has biases before its batch norms, which those
    undo, and a dropout of 0.05.

    Args:
        head_channels: channels of the pixels and of the output; the paper has 512, and half of
            that in the attention.
        align_corners: how the guess is resized where its features are finer (at 1/32).
    """

    def __init__(
        self, in_channels: int, head_channels: int = 512, align_corners: bool = False
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.out_channels = head_channels
        self.reduce_conv = ConvNormReLU(in_channels, head_channels, 3)
        self.attention = ObjectAttention(head_channels, head_channels // 2)
        self.fuse_conv = ConvNormReLU(2 * head_channels, head_channels, 1)

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        """Map features (N, in_channels, H, W) and logits (N, classes, h, w) to features."""
        features, guess = x
        pixels = self.reduce_conv(features)
        weights = resize(guess, features.shape[-2:], self.align_corners).flatten(2)
        # The softmax is over pixels: a region is a mean of them.
        regions = torch.einsum("nkp,ncp->nck", F.softmax(weights, -1), pixels.flatten(2))
        context = self.attention(pixels, regions.unsqueeze(-1))
        return self.fuse_conv(torch.cat([context, pixels], 1))
