"""ADC, the paper's Alignment with Deformable Convolution (section 3.2)."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Alignment, Decoder
from cyclenet.models.decoders.skip import FuseWithLow
from cyclenet.models.deform import deform_conv2d
from cyclenet.models.layers import ConvNormReLU, SumConv2d, ZeroConv2d, exact
from cyclenet.models.resize import resize

TAPS = 9  # Sampling positions of a 3x3 filter.


class ADC(Decoder):
    """Offsets and modulation from both features sample the context features anew (eq. 4-5).

    The offset branch's last convolution starts at zero (as FaPN's and mmcv's), so that training
    starts from a plain 3x3 convolution.

    Args:
        low_channels: channels of the low-level features.
        head_channels: channels of the context features and of the output.
        align_corners: corner alignment of the interpolation.
        offset_groups: groups of channels with offsets of their own.
        mask_scale: the modulation is this factor times a sigmoid; 0 switches it off.
    """

    aligns = True

    def __init__(
        self,
        low_channels: int,
        head_channels: int,
        align_corners: bool = False,
        *,
        offset_groups: int = 1,
        mask_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.out_channels, self.align_corners = head_channels, align_corners
        self.offset_groups, self.mask_scale = offset_groups, mask_scale
        self.fuse = FuseWithLow(low_channels, head_channels)
        predicted = offset_groups * TAPS * (3 if mask_scale > 0 else 2)
        self.offset_conv = nn.Sequential(
            ConvNormReLU(low_channels + head_channels, head_channels, 3, conv=SumConv2d),
            ZeroConv2d(head_channels, predicted, 3, padding=1),
        )
        self.weight = nn.Parameter(torch.empty(head_channels, head_channels, 3, 3))
        self.norm = nn.Sequential(nn.BatchNorm2d(head_channels), nn.ReLU(inplace=True))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the aligning filter; `cyclenet.models.layers.initialise` calls it."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        high = resize(high, low.shape[-2:], self.align_corners)
        offset, mask = self.offsets(high, low)
        if self.training:
            # Pixels of the low-level features. A maximum that grows without bound is how
            # deformable training diverges.
            length = offset.detach().abs()
            self.diagnostics = {"offset_mean": length.mean(), "offset_max": length.max()}
        return self.fuse([low, self._sample(high, offset, mask)])  # eq. 5

    def offsets(self, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict displacements and modulation from features of one size (eq. 4).

        Both are float32 at least: rounding to bfloat16 moves an offset by up to 0.4 %, which is
        pixels where it is large.

        Returns:
            Displacements (N, 2 * groups * 9, H, W), pixels, and modulation (N, groups * 9, H, W)
            or None.
        """
        predicted = exact(self.offset_conv([low, high]))
        displacements = 2 * self.offset_groups * TAPS
        if self.mask_scale == 0:
            return predicted, None
        modulation = self.mask_scale * predicted[:, displacements:].sigmoid()
        return predicted[:, :displacements], modulation

    def alignment(self, high: Tensor, low: Tensor) -> Alignment:
        """Show the alignment of context features with low-level ones."""
        high = resize(high, low.shape[-2:], self.align_corners)
        offset, mask = self.offsets(high, low)
        return Alignment(offset, mask, self.offset_groups, high, self._sample(high, offset, mask))

    def _sample(self, high: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        sampled = deform_conv2d(high, offset, mask, self.weight, self.offset_groups)
        return self.norm(sampled)
