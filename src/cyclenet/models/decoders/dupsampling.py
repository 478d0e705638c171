"""DUpsampling: "Decoders Matter for Semantic Segmentation", arXiv:1903.02120."""

import torch
from torch import Tensor, nn

from cyclenet.models.decoders.base import Decoder
from cyclenet.models.layers import ConvNormReLU
from cyclenet.models.resize import resize


class Unfold(nn.Module):
    """Predict the classes of all pixels under a feature: (N, C, h, w) -> (N, K, r h, r w).

    A linear map, W, and a temperature that is learned.
    """

    def __init__(self, channels: int, num_classes: int, ratio: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, num_classes * ratio**2, 1, bias=False)
        self.shuffle = nn.PixelShuffle(ratio)
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv(x)) / self.temperature


class DUpsampling(Decoder):
    """Low-level features come down to the context's; a learned map upsamples the prediction.

    W is trained with all else from random weights. The paper starts it from a linear code that
    reconstructs the training masks, which is not built here.

    Args:
        output_stride: pixels of the image per pixel of the context features.
        align_corners: must be false, for features then cover squares of pixels.
    """

    def __init__(
        self,
        level_channels: list[int],
        context_channels: int,
        output_stride: int,
        head_channels: int = 256,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if align_corners:
            raise ValueError(
                "model.decoder=dupsampling predicts squares of pixels: set "
                "model.align_corners=false."
            )
        self.out_channels, self.ratio = head_channels, output_stride
        self.fuse = nn.Sequential(
            ConvNormReLU(level_channels[0] + context_channels, head_channels, 3),
            ConvNormReLU(head_channels, head_channels, 3),
            ConvNormReLU(head_channels, head_channels, 1),
        )

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = resize(low, high.shape[-2:], align_corners=False)
        return self.fuse(torch.cat([low, high], 1))

    def classifier(self, num_classes: int, dropout: float) -> nn.Module:
        """Return the map to the logits of all pixels."""
        return Unfold(self.out_channels, num_classes, self.ratio)
