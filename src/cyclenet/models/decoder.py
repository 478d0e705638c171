"""Decoders: ADC, and the interpolate-and-concatenate that it is an answer to (section 3.2)."""

import torch
from torch import Tensor, nn

from cyclenet.config import ModelConfig
from cyclenet.models.deform import deform_conv2d
from cyclenet.models.layers import ConvNormReLU, SumConv2d, resize


class SkipDecoder(nn.Module):
    """Interpolate the context features to the low-level ones and convolve their concatenation (no alignment).

    (N, head, H, W) context and (N, low, 4H', 4W') low-level features -> (N, head, 4H', 4W').
    """

    def __init__(self, low_channels: int, cfg: ModelConfig) -> None:
        super().__init__()
        head = cfg.head_channels
        self.align_corners = cfg.align_corners
        self.fuse = nn.Sequential(ConvNormReLU(low_channels + head, head, 3, conv=SumConv2d), ConvNormReLU(head, head, 3))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], self.align_corners)
        return self.fuse([low, self.align(high, low)])  # eq. 5

    def align(self, high: Tensor, low: Tensor) -> Tensor:
        """Return the interpolated context features as they are."""
        return high


class ADC(SkipDecoder):
    """Alignment with Deformable Convolution: offsets and modulation from both features re-sample the context (eq. 4-5).

    The last convolution of the offset branch starts at zero (as FaPN's and mmcv's), so that training starts from a plain
    3x3 convolution.
    """

    taps = 9

    def __init__(self, low_channels: int, cfg: ModelConfig) -> None:
        super().__init__(low_channels, cfg)
        head, groups = cfg.head_channels, cfg.offset_groups
        self.offset_groups = groups
        self.mask_scale = cfg.mask_scale
        predicted = groups * self.taps * (3 if cfg.mask_scale > 0 else 2)
        last = nn.Conv2d(head, predicted, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.offset_conv = nn.Sequential(ConvNormReLU(low_channels + head, head, 3, conv=SumConv2d), last)
        self.weight = nn.Parameter(torch.empty(head, head, 3, 3))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.Sequential(nn.BatchNorm2d(head), nn.ReLU(inplace=True))

    def align(self, high: Tensor, low: Tensor) -> Tensor:
        offset, mask = self.offsets(high, low)
        return self.norm(deform_conv2d(high, offset, mask, self.weight, self.offset_groups))

    def offsets(self, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict displacements (N, 2 * groups * 9, H, W), pixels, and modulation (N, groups * 9, H, W) or None (eq. 4).

        Both are float32 at least: an offset rounded to bfloat16 is off by up to 0.4 %, pixels where it is large.
        """
        predicted = self.offset_conv([low, high])
        predicted = predicted if predicted.dtype == torch.float64 else predicted.float()
        displacements = 2 * self.offset_groups * self.taps
        if self.mask_scale == 0:
            return predicted, None
        return predicted[:, :displacements], self.mask_scale * predicted[:, displacements:].sigmoid()
